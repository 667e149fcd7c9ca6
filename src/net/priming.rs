//! The packed profile's model, made ready on a thread of its own.

use std::thread;

use tokio::sync::oneshot;

use crate::packed::Primer;

/// A model that is being made ready. The process may end before it is.
#[derive(Debug, Default)]
pub struct Priming(Option<oneshot::Receiver<()>>);

impl Priming {
    /// Begins; where there is no thread for it, whoever needs the model first makes it ready.
    pub fn begin(primer: Primer) -> Self {
        let (done, ready) = oneshot::channel();
        let thread = thread::Builder::new().name("model".into()).spawn(move || {
            primer.run();
            // Nobody may wait any more.
            let _ = done.send(());
        });
        Self(thread.is_ok().then_some(ready))
    }

    /// Waits until it is ready; from then on, or where nothing was begun, forever. Dropped while it waits, it loses nothing.
    pub async fn ready(&mut self) {
        match &mut self.0 {
            Some(ready) => {
                let _ = ready.await;
                self.0 = None;
            }
            None => std::future::pending().await,
        }
    }

    /// Waits until it is ready, if it is not.
    pub async fn done(&mut self) {
        if self.0.is_some() {
            self.ready().await;
        }
    }
}
