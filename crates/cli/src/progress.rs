//! Progress on standard error. Of pulls, imports and copies: bars on a terminal, a line a step
//! elsewhere. Of waiting: a sign of life on a terminal, nothing elsewhere.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use image::digest::Digest;
use image::progress::{Event, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::timeout;

use crate::output;

/// Draws what a pull or an import tells.
pub(crate) struct Bars {
    all: MultiProgress,
    layers: Mutex<HashMap<Option<Digest>, ProgressBar>>,
}

impl Bars {
    pub(crate) fn new() -> Self {
        Self { all: MultiProgress::new(), layers: Mutex::default() }
    }

    /// The bar of a layer, made when it is first heard of.
    fn bar(&self, layer: Option<Digest>) -> ProgressBar {
        let mut layers = self.layers.lock().expect("no thread panics while it draws");
        let bar = layers.entry(layer).or_insert_with(|| {
            let name = layer.map_or_else(|| "image".to_owned(), |digest| digest.short());
            let bar = self.all.add(ProgressBar::no_length().with_style(style()).with_prefix(name));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.clone()
    }

    fn say(&self, text: &str) {
        if self.all.is_hidden() {
            output::say(text);
        } else {
            // Above the bars; a standard error that cannot be written is nobody's loss.
            let _ = self.all.println(text);
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        let _ = self.all.clear();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:12} {msg:11} {wide_bar} {decimal_bytes:>10}/{decimal_total_bytes:10} {decimal_bytes_per_sec:>12}")
        .expect("the template is a constant")
}

impl Progress for Bars {
    fn event(&self, event: Event) {
        match event {
            Event::Reading { done } => self.moved(None, "reading", done, None),
            Event::Layers { diff_ids } => {
                if let Some(reading) =
                    self.layers.lock().expect("no thread panics while it draws").remove(&None)
                {
                    reading.finish_and_clear();
                }
                for layer in diff_ids {
                    self.bar(Some(layer)).set_message("waiting");
                }
            }
            Event::Downloading { diff_id, done, total } => {
                self.moved(Some(diff_id), "downloading", done, Some(total));
            }
            Event::Converting { diff_id, done, total } => self.moved(diff_id, "converting", done, total),
            Event::Present { diff_id } => self.finished(diff_id, "present"),
            Event::Done { diff_id } => self.finished(diff_id, "done"),
            Event::Retrying { reason, delay } => {
                self.say(&format!("{reason}; trying again in {} s", delay.as_secs_f32().ceil()));
            }
        }
    }
}

impl Bars {
    fn moved(&self, layer: Option<Digest>, what: &'static str, done: u64, total: Option<u64>) {
        let bar = self.bar(layer);
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_message(what);
        bar.set_position(done);
    }

    fn finished(&self, layer: Digest, what: &'static str) {
        if self.all.is_hidden() {
            output::say(&format!("{}: {what}", layer.short()));
        }
        self.bar(Some(layer)).finish_with_message(what);
    }
}

/// The progress of one copy, shown if it takes long enough to wonder.
pub(crate) struct CopyBar {
    name: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

/// How long work is done without a word.
const QUIET: Duration = Duration::from_secs(1);

impl CopyBar {
    pub(crate) fn new(name: String) -> Self {
        Self { name, started: Instant::now(), bar: None }
    }

    /// So many bytes of so many are copied.
    pub(crate) fn moved(&mut self, done: u64, total: u64) {
        if self.started.elapsed() < QUIET {
            return;
        }
        let name = &self.name;
        let bar = self.bar.get_or_insert_with(|| {
            ProgressBar::new(total).with_style(style()).with_prefix(name.clone()).with_message("copying")
        });
        bar.set_length(total);
        bar.set_position(done);
    }
}

impl Drop for CopyBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Waits for `work`, and on a terminal says for what if it takes long enough to wonder.
pub(crate) async fn patiently<T>(what: String, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(QUIET, &mut work).await {
        return done;
    }
    let spinner = Spinner(ProgressBar::new_spinner().with_message(what));
    spinner.0.enable_steady_tick(Duration::from_millis(100));
    work.await
}

/// Goes without a trace, also when nobody waits any more.
struct Spinner(ProgressBar);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
