//! The numbers of a scrape, in OTLP: read from the text that Prometheus would get, so that the two can't differ. Histograms that
//! OpenTelemetry has names for are there under both.

use std::collections::BTreeMap;
use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use refrain_core::Api;

use super::value::{nanos, resource, scope, text};
use crate::telemetry::gen_ai;
use crate::telemetry::scraped::{Family, Sample, families};

/// From when to when numbers were counted, in nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Period {
    start: u64,
    end: u64,
}

/// What a collector is sent. `started`: since when counters count.
pub(super) fn request(service_name: &str, scraped: &str, started: SystemTime) -> ExportMetricsServiceRequest {
    let period = Period { start: nanos(started), end: nanos(SystemTime::now()) };
    let metrics = families(scraped).iter().flat_map(|family| of(family, period)).collect();
    let of_scope = ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource(service_name)),
            scope_metrics: vec![of_scope],
            ..ResourceMetrics::default()
        }],
    }
}

/// A family under its own name, and under that of the conventions.
fn of(family: &Family<'_>, period: Period) -> Vec<Metric> {
    let own = |data| metric(family.name, family.help, data);
    match family.kind {
        "counter" => vec![own(Data::Sum(Sum {
            data_points: numbers(family, period),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }))],
        "gauge" => vec![own(Data::Gauge(Gauge { data_points: numbers(family, period) }))],
        "histogram" => {
            let points = histograms(family, period);
            let known = gen_ai::HISTOGRAMS.iter().find(|(name, _)| *name == family.name);
            let of_conventions = known.map(|(_, name)| {
                metric(name, family.help, histogram(points.iter().filter_map(conventional).collect()))
            });
            let own = own(histogram(points));
            std::iter::once(own).chain(of_conventions).collect()
        }
        _ => Vec::new(),
    }
}

fn metric(name: &str, help: &str, data: Data) -> Metric {
    let unit = if name.contains("_seconds") || name.starts_with("gen_ai") {
        "s"
    } else if name.contains("_bytes") {
        "By"
    } else {
        ""
    };
    Metric {
        name: name.to_owned(),
        description: help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn histogram(data_points: Vec<HistogramDataPoint>) -> Data {
    Data::Histogram(Histogram {
        data_points,
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
    })
}

fn numbers(family: &Family<'_>, period: Period) -> Vec<NumberDataPoint> {
    let point = |sample: &Sample<'_>| NumberDataPoint {
        attributes: sample.labels.iter().map(|(name, value)| text(name, value.as_str())).collect(),
        start_time_unix_nano: period.start,
        time_unix_nano: period.end,
        value: Some(Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    };
    family.samples.iter().map(point).collect()
}

/// One series of a histogram, as its lines tell it.
#[derive(Default)]
struct Series {
    bounds: Vec<f64>,
    /// Cumulative, as in the text.
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

fn histograms(family: &Family<'_>, period: Period) -> Vec<HistogramDataPoint> {
    let mut all: BTreeMap<Vec<(String, String)>, Series> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels: Vec<_> =
            sample.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let bound = labels.iter().position(|(name, _)| name == "le").map(|at| labels.remove(at).1);
        let series = all.entry(labels).or_default();
        match (sample.name.rsplit_once('_'), bound) {
            (Some((_, "bucket")), Some(bound)) => {
                series.bounds.extend(bound.parse::<f64>().ok().filter(|bound| bound.is_finite()));
                series.counts.push(sample.value as u64);
            }
            (Some((_, "sum")), _) => series.sum = sample.value,
            (Some((_, "count")), _) => series.count = sample.value as u64,
            _ => {}
        }
    }
    all.into_iter().map(|(labels, series)| series.point(&labels, period)).collect()
}

impl Series {
    fn point(self, labels: &[(String, String)], period: Period) -> HistogramDataPoint {
        let mut below = 0;
        let own = |count: u64| count.saturating_sub(std::mem::replace(&mut below, count));
        HistogramDataPoint {
            attributes: labels.iter().map(|(name, value)| text(name, value.as_str())).collect(),
            start_time_unix_nano: period.start,
            time_unix_nano: period.end,
            count: self.count,
            sum: Some(self.sum),
            bucket_counts: self.counts.into_iter().map(own).collect(),
            explicit_bounds: self.bounds,
            ..HistogramDataPoint::default()
        }
    }
}

/// The same with the conventions' attributes; none of what is no call of a model, nor of what Refrain answers itself: errors,
/// preflights.
fn conventional(point: &HistogramDataPoint) -> Option<HistogramDataPoint> {
    let label = |name: &str| point.attributes.iter().find(|attribute| attribute.key == name).and_then(string);
    let api = Api::ALL.into_iter().find(|api| label("api") == Some(api.as_str()))?;
    if label("origin") == Some("own") {
        return None;
    }
    let mut attributes =
        vec![text(gen_ai::OPERATION, gen_ai::operation(api)), text(gen_ai::PROVIDER, gen_ai::provider(api))];
    attributes.extend(label("route").map(|route| text("refrain.route", route)));
    attributes.extend(label("api").map(|api| text("refrain.api", api)));
    attributes.extend(label("origin").map(|origin| text("refrain.origin", origin)));
    Some(HistogramDataPoint { attributes, ..point.clone() })
}

fn string(attribute: &KeyValue) -> Option<&str> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_both_names_and_buckets_of_their_own() {
        let scraped = "# HELP refrain_response_seconds h\n# TYPE refrain_response_seconds histogram\n\
            refrain_response_seconds_bucket{route=\"r\",api=\"ollama_chat\",origin=\"cache\",le=\"0.5\"} 2\n\
            refrain_response_seconds_bucket{route=\"r\",api=\"ollama_chat\",origin=\"cache\",le=\"1\"} 5\n\
            refrain_response_seconds_bucket{route=\"r\",api=\"ollama_chat\",origin=\"cache\",le=\"+Inf\"} 6\n\
            refrain_response_seconds_sum{route=\"r\",api=\"ollama_chat\",origin=\"cache\"} 4.5\n\
            refrain_response_seconds_count{route=\"r\",api=\"ollama_chat\",origin=\"cache\"} 6\n\
            refrain_response_seconds_bucket{route=\"r\",api=\"ollama_chat\",origin=\"own\",le=\"+Inf\"} 1\n\
            refrain_response_seconds_count{route=\"r\",api=\"ollama_chat\",origin=\"own\"} 1\n\
            # TYPE refrain_x_total counter\nrefrain_x_total{a=\"b \\\"c\\\"\"} 7\n";
        let request = request("s", scraped, SystemTime::now());
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let names: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["refrain_response_seconds", "gen_ai.server.request.duration", "refrain_x_total"]);
        let Some(Data::Histogram(histogram)) = &metrics[1].data else { panic!("no histogram") };
        let [point] = &histogram.data_points[..] else { panic!("errors are no calls of a model") };
        assert_eq!((&point.bucket_counts, &point.explicit_bounds), (&vec![2, 3, 1], &vec![0.5, 1.0]));
        assert_eq!((point.count, point.sum), (6, Some(4.5)));
        assert_eq!(string(&point.attributes[0]), Some("chat"));
        let Some(Data::Sum(sum)) = &metrics[2].data else { panic!("no sum") };
        assert_eq!(string(&sum.data_points[0].attributes[0]), Some("b \"c\""));
    }
}
