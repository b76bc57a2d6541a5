use super::*;

fn with(chosen: Chosen, environment: &[(&str, &str)]) -> Result<Option<Otlp>, WrongVariable> {
    chosen.with(|name| Some(environment.iter().find(|(key, _)| *key == name)?.1.to_owned()))
}

fn at(endpoint: &str) -> ChosenTarget {
    ChosenTarget { endpoint: Some(endpoint.into()), ..ChosenTarget::default() }
}

#[test]
fn the_file_wins_over_the_environment() {
    let all = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%20c, d=e"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=x,deployment.environment.name=test"),
        ("OTEL_SERVICE_NAME", "edge"),
    ];
    let found = with(Chosen::default(), &all).unwrap().unwrap();
    assert_eq!(found.resource["service.name"], "edge");
    assert_eq!(found.resource["deployment.environment.name"], "test");
    assert_eq!(found.events, None);
    let Metrics { target, interval } = found.metrics.unwrap();
    assert_eq!(target.url, "http://c:4318/v1/metrics");
    assert_eq!((interval, target.timeout), (Duration::from_secs(5), Duration::from_secs(2)));
    assert_eq!((target.headers["a"].as_str(), target.headers["d"].as_str()), ("b c", "e"));
    let chosen =
        Chosen { target: at("https://f"), interval: Some(Duration::from_secs(9)), ..Chosen::default() };
    let found = with(chosen, &all).unwrap().unwrap().metrics.unwrap();
    assert_eq!((found.target.url.as_str(), found.interval.as_secs()), ("https://f/v1/metrics", 9));
    let one = [all[0], ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m/x")];
    let found = with(Chosen::default(), &one).unwrap().unwrap().metrics.unwrap();
    assert_eq!(found.target.url, "http://m/x");
}

#[test]
fn events_have_an_end_of_their_own() {
    let events = |target: ChosenTarget| ChosenEvents { target, ..ChosenEvents::default() };
    let secret = Some(BTreeMap::from([("authorization".into(), "secret".into())]));
    let both = ChosenTarget { headers: secret.clone(), ..at("http://c:4318") };
    let found = |target: &ChosenTarget, events, environment: &[(&str, &str)]| {
        let chosen = Chosen { target: target.clone(), events: Some(events), interval: None };
        with(chosen, environment).unwrap().unwrap()
    };
    let same = found(&both, events(ChosenTarget::default()), &[]);
    let same = (same.metrics.unwrap().target, same.events.unwrap());
    assert_eq!(same.1.target, Target { url: "http://c:4318/v1/logs".into(), ..same.0 });
    assert_eq!((same.1.delay, same.1.batch), (DELAY, BATCH));
    // The headers of one end do not go to another one.
    let other = found(&both, events(at("http://loki/otlp")), &[]).events.unwrap();
    assert_eq!((other.target.url.as_str(), other.target.headers.len()), ("http://loki/otlp/v1/logs", 0));
    let alone = found(&ChosenTarget::default(), events(at("http://loki")), &[]);
    assert_eq!((alone.metrics, alone.events.unwrap().target.url.as_str()), (None, "http://loki/v1/logs"));

    let all = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://l/x"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "a=b"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "3000"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "200"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "9"),
    ];
    let found = found(&ChosenTarget::default(), events(ChosenTarget::default()), &all);
    let (metrics, events) = (found.metrics.unwrap().target, found.events.unwrap());
    assert_eq!((metrics.url.as_str(), events.target.url.as_str()), ("http://c/v1/metrics", "http://l/x"));
    assert_eq!((metrics.headers.len(), events.target.headers["a"].as_str()), (0, "b"));
    assert_eq!((events.target.timeout.as_secs(), events.delay.as_millis(), events.batch), (3, 200, 9));
    let off = [all[0], ("OTEL_LOGS_EXPORTER", "none")];
    let chosen = || Chosen { events: Some(ChosenEvents::default()), ..Chosen::default() };
    assert_eq!(with(chosen(), &off).unwrap().unwrap().events, None);
    for wrong in [
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "l"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "0"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "1s"),
    ] {
        assert_eq!(with(chosen(), &[all[0], wrong]).unwrap_err().0, wrong.0);
    }
}

#[test]
fn without_an_endpoint_nothing_is_sent() {
    assert_eq!(with(Chosen::default(), &[("OTEL_METRIC_EXPORT_INTERVAL", "x")]), Ok(None));
    let on = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
    assert_eq!(with(Chosen::default(), &[on, ("OTEL_METRICS_EXPORTER", "none")]), Ok(None));
    assert_eq!(with(Chosen::default(), &[on, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
    assert_eq!(with(Chosen::default(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
}

#[test]
fn a_wrong_variable_is_named() {
    let on = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "60s"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=%0a"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
    ] {
        let environment = [(name, value), on];
        assert_eq!(with(Chosen::default(), &environment).unwrap_err().0, name, "{value}");
    }
}
