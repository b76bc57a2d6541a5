//! The process that sends metrics and events. It is a client of the daemon, and has no privilege.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::error::Error;
use crate::host::clock;
use crate::serve::helper;
use crate::serve::otlp::delivery::{Delivery, Done, Nouns};
use crate::serve::otlp::events::counts::Counts;
use crate::serve::otlp::events::export::EventExport;
use crate::serve::otlp::events::progress::State;
use crate::serve::otlp::queue::MOST;
use crate::serve::otlp::reading;
use crate::serve::otlp::request::{Maker, Own};
use crate::serve::otlp::resource;
use crate::settings::otlp::{Metrics, Otlp};

/// What the back gives to the process: a line of JSON on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// What goes where.
    pub(crate) otlp: Otlp,
    /// The socket of the daemon.
    pub(crate) socket: PathBuf,
    /// Handshakes and lifetimes are counted.
    pub(crate) lifetimes: bool,
    /// Ports that have points of their own in both directions.
    pub(crate) ports: Vec<(u16, u16)>,
    /// How far the last export of events came, if there was one.
    pub(crate) state: Option<State>,
}

/// Runs the process, with its orders on standard input, until the back ends.
///
/// # Errors
/// It cannot become another user, or the orders are none.
pub(crate) fn run(user: Option<u32>, group: Option<u32>) -> Result<(), Error> {
    let error = |source| Error::Io { context: "starting the export by OTLP".into(), source };
    let orders: Orders = helper::orders(user, group).map_err(error)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(error)?;
    let Otlp { metrics, events, resource } = &orders.otlp;
    let resource = resource::of_host(resource);
    let counts = Rc::new(Cell::new(Counts::default()));
    runtime.block_on(async {
        let of_metrics = async {
            if let Some(metrics) = metrics {
                let counts = events.is_some().then(|| Rc::clone(&counts));
                let maker = Maker::new(orders.ports.clone(), resource.clone());
                MetricExport::new(&orders, metrics, maker, counts).run().await;
            }
        };
        let of_events = async {
            if let Some(events) = events {
                let counts = Rc::clone(&counts);
                EventExport::new(events.clone(), resource.clone(), counts, orders.state)
                    .run(&orders.socket)
                    .await;
            }
        };
        tokio::join!(of_metrics, of_events);
    });
    Ok(())
}

struct MetricExport<'a> {
    orders: &'a Orders,
    settings: &'a Metrics,
    maker: Maker,
    delivery: Delivery<()>,
    own: Own,
    /// What the export of events counts, if there is one.
    events: Option<Rc<Cell<Counts>>>,
    /// Why the last reading failed.
    complaint: Option<String>,
}

impl<'a> MetricExport<'a> {
    fn new(
        orders: &'a Orders,
        settings: &'a Metrics,
        maker: Maker,
        events: Option<Rc<Cell<Counts>>>,
    ) -> Self {
        Self {
            orders,
            settings,
            maker,
            delivery: Delivery::new(settings.target.clone(), Nouns { all: "metrics", parts: "data points" }),
            own: Own {
                start_unix_ns: u64::try_from(clock::unix_now_ns()).unwrap_or_default(),
                ..Own::default()
            },
            events,
            complaint: None,
        }
    }

    /// Reads and sends for ever. A reading never waits for the collector.
    async fn run(mut self) {
        let mut ticks = interval(self.settings.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.read().await,
                done = self.delivery.next() => match done {
                    Done::Arrived { rejected, .. } => {
                        self.own.rejected = self.own.rejected.saturating_add(rejected);
                    }
                    Done::Refused(()) => self.own.dropped += 1,
                },
            }
        }
    }

    /// Makes a request of a reading.
    async fn read(&mut self) {
        match reading::stats(&self.orders.socket, self.orders.lifetimes).await {
            Ok(stats) => {
                self.complaint = None;
                self.own.events = self.events.as_ref().map(|counts| counts.get());
                let request = self.maker.request(&stats, self.own);
                let dropped = self.delivery.push(request.encode_to_vec().into(), ()).len();
                if dropped > 0 {
                    self.own.dropped += dropped as u64;
                    log::warn!(
                        "{} does not take metrics: {dropped} of more than {MOST} requests that wait dropped, {} in all. \
                         The counts are in the next one",
                        self.delivery.url(),
                        self.own.dropped
                    );
                }
            }
            Err(error) => {
                let text = error.to_string();
                if self.complaint.as_ref() != Some(&text) {
                    log::warn!("no reading to export: {text}");
                }
                self.complaint = Some(text);
            }
        }
    }
}
