//! Figures for `/metrics`, in Prometheus' text format. What can be counted elsewhere is counted when asked for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the request time histogram, in seconds.
const BOUNDS_S: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2, 1.0, 10.0];

/// Something that goes up (and, for a gauge, down).
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, by: u64) {
        self.0.fetch_sub(by, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Debug, Default)]
struct Times {
    buckets: [u64; BOUNDS_S.len()],
    count: u64,
    sum: Duration,
}

/// All that is counted as it happens.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections_open: Count,
    pub(crate) connections_total: Count,
    pub(crate) connections_refused: Count,
    pub(crate) streams_open: Count,
    pub(crate) streams_lagged: Count,
    pub(crate) auth_refused: Count,
    pub(crate) operations: Count,
    pub(crate) operations_failed: Count,
    pub(crate) lockenv_waiting: Count,
    pub(crate) lockenv_running: Count,
    pub(crate) lockenv_total: Count,
    /// By method, route and status. Routes are patterns, so there are few.
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    times: Mutex<BTreeMap<(String, String), Times>>,
}

impl Metrics {
    /// A request was answered.
    pub(crate) fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let key = (method.to_owned(), route.to_owned());
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = times.entry(key).or_default();
        for (bucket, bound) in entry.buckets.iter_mut().zip(BOUNDS_S) {
            if took.as_secs_f64() <= bound {
                *bucket += 1;
            }
        }
        entry.count += 1;
        entry.sum += took;
        drop(times);
        let key = (method.to_owned(), route.to_owned(), status);
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    /// Everything counted here.
    pub(crate) fn print(&self, page: &mut Page) {
        let gauges = [
            ("toci_api_connections", "Open connections to the API.", &self.connections_open),
            ("toci_api_streams", "Open event streams.", &self.streams_open),
            ("toci_lockenv_waiting", "lockenv jobs that wait for a TE.", &self.lockenv_waiting),
            ("toci_lockenv_running", "lockenv jobs that have a TE.", &self.lockenv_running),
        ];
        for (name, help, count) in gauges {
            page.family(name, help, "gauge");
            page.sample(name, &[], count.get());
        }
        let counters = [
            (
                "toci_api_connections_total",
                "Connections to the API ever accepted.",
                &self.connections_total,
            ),
            (
                "toci_api_connections_refused_total",
                "Connections refused because there were too many.",
                &self.connections_refused,
            ),
            (
                "toci_api_streams_lagged_total",
                "Event streams ended because their reader was too slow.",
                &self.streams_lagged,
            ),
            ("toci_api_auth_refused_total", "Calls with a bad token.", &self.auth_refused),
            ("toci_operations_total", "Operations sent to hosts.", &self.operations),
            (
                "toci_operations_failed_total",
                "Operations that a host did not carry out.",
                &self.operations_failed,
            ),
            ("toci_lockenv_total", "lockenv jobs taken.", &self.lockenv_total),
        ];
        for (name, help, count) in counters {
            page.family(name, help, "counter");
            page.sample(name, &[], count.get());
        }
        self.print_requests(page);
    }

    fn print_requests(&self, page: &mut Page) {
        let name = "toci_api_requests_total";
        page.family(name, "Answered calls.", "counter");
        for ((method, route, status), count) in
            &*self.requests.lock().unwrap_or_else(PoisonError::into_inner)
        {
            let status = status.to_string();
            page.sample(name, &[("method", method), ("route", route), ("status", &status)], *count);
        }
        let name = "toci_api_request_seconds";
        page.family(name, "Time from a call to the head of its answer.", "histogram");
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ((method, route), times) in &times {
            let labels = [("method", method.as_str()), ("route", route.as_str())];
            for (bound, count) in BOUNDS_S.iter().zip(times.buckets) {
                let bound = bound.to_string();
                let bucket = [labels[0], labels[1], ("le", &bound)];
                page.sample("toci_api_request_seconds_bucket", &bucket, count);
            }
            let all = [labels[0], labels[1], ("le", "+Inf")];
            page.sample("toci_api_request_seconds_bucket", &all, times.count);
            page.sample("toci_api_request_seconds_sum", &labels, times.sum.as_secs_f64());
            page.sample("toci_api_request_seconds_count", &labels, times.count);
        }
    }
}

/// A page of figures.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// What the next samples are.
    pub(crate) fn family(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One figure.
    pub(crate) fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl std::fmt::Display,
    ) {
        self.0.push_str(name);
        for (at, (key, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{key}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A family whose samples are counted by one label.
    pub(crate) fn counted(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        words: impl Iterator<Item = String>,
    ) {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for word in words {
            *counts.entry(word).or_default() += 1;
        }
        self.family(name, help, "gauge");
        for (word, count) in counts {
            self.sample(name, &[(label, &word)], count);
        }
    }

    /// The text.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_printed_in_prometheus_form() {
        let metrics = Metrics::default();
        metrics.streams_open.add(2);
        metrics.request("GET", "/api/v1/leases", 200, Duration::from_millis(3));
        let mut page = Page::default();
        metrics.print(&mut page);
        page.counted("x", "X.", "state", ["a\"b".to_owned(), "a\"b".to_owned()].into_iter());
        let text = page.into_text();
        for line in [
            "toci_api_streams 2",
            "toci_api_requests_total{method=\"GET\",route=\"/api/v1/leases\",status=\"200\"} 1",
            "toci_api_request_seconds_bucket{method=\"GET\",route=\"/api/v1/leases\",le=\"0.002\"} 0",
            "toci_api_request_seconds_bucket{method=\"GET\",route=\"/api/v1/leases\",le=\"0.005\"} 1",
            "toci_api_request_seconds_count{method=\"GET\",route=\"/api/v1/leases\"} 1",
            "x{state=\"a\\\"b\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
