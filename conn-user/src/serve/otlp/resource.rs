//! What requests say of their sender.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// The resource of this host. `named`: attributes that win over the usual ones.
pub(crate) fn of_host(named: &BTreeMap<String, String>) -> Resource {
    let host = nix::unistd::gethostname();
    let host = host.map_or_else(|_| "-".into(), |name| name.to_string_lossy().into_owned());
    let usual = [
        ("service.name", "conntrace"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("host.name", host.as_str()),
        ("os.type", "linux"),
    ];
    let mut all: BTreeMap<&str, &str> = usual.into();
    all.extend(named.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let attributes = all
        .into_iter()
        .map(|(key, value)| attribute(key, any_value::Value::StringValue(value.into())))
        .collect();
    Resource { attributes, ..Resource::default() }
}

/// The part of the program.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "conntrace".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    }
}

/// An attribute.
pub(crate) fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
