//! How busy GPUs are: read from a Prometheus exporter beside each server, for which a fake stands here.

use refrain_tests::fake::{Answer, FakeUpstream};
use refrain_tests::{Ask, Config, Refrain, eventually};

use crate::fleet::operators::upstreams;

const GAUGE: &str = "refrain_endpoint_gpu_utilization_ratio";

/// Two GPUs, three quarters of which are used.
const PAGE: &str = "# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n\
                    DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",modelName=\"NVIDIA H100\"} 100\n\
                    DCGM_FI_DEV_GPU_UTIL{gpu=\"1\",modelName=\"NVIDIA H100\"} 50\n\
                    DCGM_FI_DEV_MEM_COPY_UTIL{gpu=\"0\",modelName=\"NVIDIA H100\"} 3\n";

/// An exporter with two GPUs.
pub(crate) async fn exporter() -> FakeUpstream {
    let fake = FakeUpstream::start().await;
    fake.answers_gets(|_| Answer::whole(200, "text/plain; version=0.0.4", PAGE));
    fake
}

/// The table by which the pool of tests reads it each second.
pub(crate) fn table(exporter: &FakeUpstream) -> String {
    format!("[pool.llm.gpu]\nport = {}\ninterval = \"1s\"\n", exporter.address().port())
}

#[tokio::test]
async fn gpu_use_is_shown_while_an_exporter_tells_it() {
    let (fake, exporter) = (FakeUpstream::start().await, exporter().await);
    let config = Config::new(&fake.url())
        .pool("authorization = { value = \"Bearer top-secret\" }")
        .tables(&table(&exporter));
    let refrain = Refrain::start(&config).await;
    let of_pool = format!("{GAUGE}{{pool=\"llm\"");
    eventually("the gauge", async || {
        let scraped = refrain.metrics().await;
        (scraped.has(&of_pool) && scraped.sum(GAUGE, &[("pool", "llm")]) == 0.75).then_some(())
    })
    .await;
    let (has_succeeded, shown) = upstreams(&refrain, &[]).await;
    assert!(has_succeeded && shown.contains(", GPU 75 %"), "{shown}");
    let page = refrain.admin(&Ask::get("/upstreams")).await.json();
    assert_eq!(page["pools"][0]["endpoints"][0]["gpu_utilization"], 0.75, "{page}");
    let asked = exporter.requests("/metrics");
    assert!(!asked.is_empty() && asked.iter().all(|request| request.header("authorization").is_empty()));

    exporter.answers_gets(|_| Answer::whole(503, "text/plain", "restarting"));
    eventually("no gauge", async || (!refrain.metrics().await.has(&of_pool)).then_some(())).await;
    let (_, shown) = upstreams(&refrain, &[]).await;
    assert!(!shown.contains("GPU") && shown.contains(" healthy "), "{shown}");
    assert_eq!(refrain.send(&Ask::chat("as before")).await.status, 200);
    assert_eq!(refrain.logs().matches("GPU use is not told").count(), 1, "once, and not for each reading");
}
