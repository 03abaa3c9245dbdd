//! Downloads a pattern with dlm's engine and this crate's backend.
//!
//! ```text
//! cargo run -- pattern://1000000/7 [FOLDER]
//! ```

use std::process::ExitCode;

use dlm_core::{Engine, FileSink, JobSpec, Result};
use dlm_pattern::PatternBackend;

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let locator = args.next().unwrap_or_else(|| "pattern://1000000/7".into());
    let folder = args.next().unwrap_or_else(|| ".".into());
    match download(&locator, &folder).await {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{e}. {}", e.advice());
            ExitCode::FAILURE
        }
    }
}

async fn download(locator: &str, folder: &str) -> Result<String> {
    let engine = Engine::builder().backend(PatternBackend::new()).build();
    let sink = FileSink::builder(folder).build()?;
    let journal = sink.journal();
    let outcome = engine.start(JobSpec::new(locator.parse()?), sink.clone(), journal).await?;
    let path = outcome.files.first().and_then(|f| sink.path(f.id)).unwrap_or_default();
    Ok(format!("{}: {} bytes", path.display(), outcome.bytes))
}
