//! Tells a person what happens.

use super::{layout::Layout, progress::Progress};
use crate::{
    drives::listing,
    text::{Style, Tone},
};
use tokio::time::Instant;

/// Tells a person what happens, with the time since the start.
pub struct Teller {
    /// How standard output looks.
    pub style: Style,
    started: Instant,
}

impl Teller {
    /// Begins now.
    pub fn new() -> Teller {
        Teller {
            style: Style::of_stdout(),
            started: Instant::now(),
        }
    }

    /// One line, with the time since the beginning.
    pub fn say(&self, line: &str) {
        let seconds = format!("{:>7.1} s", self.started.elapsed().as_secs_f64());
        println!("{}  {line}", self.style.paint(Tone::Faint, &seconds));
    }

    /// The rack is up: its drives, and how to look at them.
    pub fn show_up(&self, progress: &Progress, layout: &Layout) {
        let dir = layout.dir().display();
        self.say(&self.style.paint(Tone::Good, "the rack is up"));
        println!(
            "\n{}",
            listing(self.style, &progress.drives(), &Default::default(), false)
        );
        println!("Look at it from another terminal; Ctrl-C takes it down.");
        println!("  strandctl status --dir {dir}");
        println!("  strandctl drives --why --dir {dir}");
        println!(
            "  kubectl --kubeconfig {} get mpool,drv\n",
            layout.kubeconfig().display()
        );
    }
}
