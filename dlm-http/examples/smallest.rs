//! The smallest download: one address, into the current folder, resumable.
//!
//! ```text
//! cargo run -p dlm-http --example smallest -- https://host/file
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use dlm_core::{Engine, FileSink, JobSpec, Result};
use dlm_http::HttpBackend;

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_default();
    let spec = JobSpec::new(address.parse()?);
    let engine = Engine::builder().backend(HttpBackend::builder().build()).build();
    let sink = FileSink::builder(".").build()?;
    let journal = sink.journal();
    let outcome = engine.start(spec, sink.clone(), journal).await?;
    for file in &outcome.files {
        println!("{}: {} bytes", sink.path(file.id).unwrap_or_default().display(), file.len);
    }
    Ok(())
}
