//! Metrics of the registry.
//!
//! Owns: the metric families and their names. Labels are route templates, methods, codes and outcomes.
//! Refuses: repositories, digests, users and addresses as labels, because clients determine their number.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Families;

use crate::registry::ports::Condition;

/// Upper bounds of the time to first byte in seconds: 1 ms to about 30 s, each twice the previous one.
const FIRST_BYTE_SECONDS: [f64; 16] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192, 16.384, 32.768,
];

/// Route and method of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct HttpLabels {
    pub(crate) route: &'static str,
    method: &'static str,
}

impl HttpLabels {
    pub(crate) fn new(route: &'static str, method: &Method) -> Self {
        // Clients can send any method.
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
        let method = known
            .into_iter()
            .find(|known| *known == method.as_str())
            .unwrap_or("other");
        Self { route, method }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    route: &'static str,
    method: &'static str,
    code: u16,
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As asked.
    Ok,
    /// It failed because of the client, or the client disconnected.
    Client,
    /// It failed because of the server.
    Error,
}

/// What is transferred to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulled {
    Blob,
    Manifest,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PushLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PullLabels {
    kind: &'static str,
    result: &'static str,
}

/// All families.
#[derive(Debug)]
pub(crate) struct Metrics {
    families: Families,
    requests: Family<AnswerLabels, Counter>,
    first_byte: Family<HttpLabels, Histogram>,
    in_flight: Gauge<i64, AtomicI64>,
    pushes: Family<PushLabels, Counter>,
    pulls: Pulls,
    kept_answers: Counter,
    read_only: Gauge<i64, AtomicI64>,
}

/// What counts answers of one route, method and status, so that counting one looks nothing up.
#[derive(Debug)]
pub(crate) struct AnswerCounters {
    requests: Counter,
    first_byte: Histogram,
}

impl AnswerCounters {
    /// Counts an answer whose head is ready.
    pub(crate) fn count(&self, elapsed: Duration) {
        self.requests.inc();
        self.first_byte.observe(elapsed.as_secs_f64());
    }
}

/// Counts a request as in flight until it drops.
#[derive(Debug)]
pub(crate) struct InFlight(Gauge<i64, AtomicI64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers all families. `collectors` add further ones with the same prefix.
    pub(crate) fn new(collectors: Vec<Box<dyn Collector>>) -> Self {
        let mut families = Families::with_prefix("registry");
        for collector in collectors {
            families.register_collector(collector);
        }
        let requests = Family::<AnswerLabels, Counter>::default();
        families.register(
            "http_requests",
            "Requests by route, method and status",
            requests.clone(),
        );
        let first_byte = Family::<HttpLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(FIRST_BYTE_SECONDS)
        });
        families.register(
            "http_first_byte_seconds",
            "Time from a request's head to its answer's first bytes",
            first_byte.clone(),
        );
        let in_flight = Gauge::default();
        families.register(
            "http_in_flight_requests",
            "Requests without an answer yet",
            in_flight.clone(),
        );
        let pushes = Family::<PushLabels, Counter>::default();
        families.register("push", "Pushes, counted at their manifest", pushes.clone());
        let pulls = Pulls::register(&mut families);
        let kept_answers = Counter::default();
        families.register(
            "kept_answers",
            "Answers that were kept in memory, so that nothing was looked up or read for them",
            kept_answers.clone(),
        );
        let read_only = Gauge::default();
        families.register(
            "storage_read_only",
            "1 while the storage is read-only after a failure",
            read_only.clone(),
        );
        Self {
            families,
            requests,
            first_byte,
            in_flight,
            pushes,
            pulls,
            kept_answers,
            read_only,
        }
    }

    pub(crate) fn enter(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Returns what counts the answers of this route and method with this status.
    pub(crate) fn counters(&self, labels: &HttpLabels, status: StatusCode) -> AnswerCounters {
        let HttpLabels { route, method } = *labels;
        let code = status.as_u16();
        let answer = AnswerLabels {
            route,
            method,
            code,
        };
        AnswerCounters {
            requests: self.requests.get_or_create_owned(&answer),
            first_byte: self.first_byte.get_or_create_owned(labels),
        }
    }

    /// Counts an answer whose head is ready.
    pub(crate) fn answered(&self, labels: &HttpLabels, status: StatusCode, elapsed: Duration) {
        let HttpLabels { route, method } = *labels;
        self.counters(labels, status).count(elapsed);
        if (method, route) == ("PUT", "/v2/{name}/manifests/{reference}") {
            let result = outcome(status).label();
            self.pushes.get_or_create(&PushLabels { result }).inc();
        }
    }

    /// Counts the end of a blob's or manifest's transfer.
    pub(crate) fn pulled(&self, kind: Pulled, outcome: Outcome) {
        self.pulls.counter(kind, outcome).inc();
    }

    /// Counts an answer that was kept in memory.
    pub(crate) fn count_kept_answer(&self) {
        self.kept_answers.inc();
    }

    pub(crate) fn set_condition(&self, condition: Condition) {
        let is_read_only = matches!(condition, Condition::ReadOnly | Condition::Closed);
        self.read_only.set(i64::from(is_read_only));
    }

    /// Encodes all families in the `OpenMetrics` text format.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.families)?;
        Ok(text)
    }
}

/// The counters of transfers. All exist from the start, so that counting one looks nothing up.
#[derive(Debug)]
struct Pulls {
    blobs: [Counter; Outcome::ALL.len()],
    manifests: [Counter; Outcome::ALL.len()],
}

impl Pulls {
    fn register(families: &mut Families) -> Self {
        let family = Family::<PullLabels, Counter>::default();
        let counters = |kind: Pulled| {
            Outcome::ALL.map(|outcome| {
                let (kind, result) = (kind.label(), outcome.label());
                family.get_or_create_owned(&PullLabels { kind, result })
            })
        };
        let pulls = Self {
            blobs: counters(Pulled::Blob),
            manifests: counters(Pulled::Manifest),
        };
        families.register(
            "pull",
            "Transfers of manifests and blobs, by outcome",
            family,
        );
        pulls
    }

    fn counter(&self, kind: Pulled, outcome: Outcome) -> &Counter {
        let [ok, client, error] = match kind {
            Pulled::Blob => &self.blobs,
            Pulled::Manifest => &self.manifests,
        };
        match outcome {
            Outcome::Ok => ok,
            Outcome::Client => client,
            Outcome::Error => error,
        }
    }
}

impl Pulled {
    fn label(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Manifest => "manifest",
        }
    }
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Ok, Self::Client, Self::Error];

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Client => "client",
            Self::Error => "error",
        }
    }
}

fn outcome(status: StatusCode) -> Outcome {
    if status.is_server_error() {
        Outcome::Error
    } else if status.is_client_error() {
        Outcome::Client
    } else {
        Outcome::Ok
    }
}
