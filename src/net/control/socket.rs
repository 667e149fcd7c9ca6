//! The Unix socket of [`Control`], at both ends.

use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time;
use tracing::debug;
use tracing::warn;
use zeroize::Zeroizing;

use super::Answer;
use super::Command;
use super::Order;

/// A command is no longer than this: a list of routes is the longest part of any.
const LONGEST_COMMAND: u64 = 256 << 10;
/// An answer is no longer than this: ten thousand devices with a list of routes each are.
const LONGEST_ANSWER: u64 = 64 << 20;
/// How long one end waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);
/// Root may open the file anyway.
const ROOT: u32 = 0;

/// The gateway's end.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    /// Whose socket it is: the gateway's own user.
    owner: u32,
}

impl Control {
    /// Connections at a time; more wait.
    const CONNECTIONS: usize = 8;
    /// The rest after a connection that could not be taken.
    const REST: Duration = Duration::from_millis(100);

    /// Makes the socket. One that a gateway has left behind is taken away.
    ///
    /// # Errors
    /// A gateway listens there, something else is there, or the system says no.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let fail = |source| ControlError::Io { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
                match net::UnixStream::connect(path) {
                    Ok(_) => return Err(ControlError::Taken(path.to_owned())),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        fs::remove_file(path).map_err(fail)?;
                    }
                    // Of another kind, or another user's.
                    Err(error) => return Err(fail(error)),
                }
            }
            Ok(_) => return Err(ControlError::NoSocket(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        let listener = UnixListener::bind(path).map_err(fail)?;
        // Who connects before this is refused by who it is.
        fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(fail)?;
        let owner = fs::metadata(path).map_err(fail)?.uid();
        Ok(Self { listener, path: path.to_owned(), owner })
    }

    /// Takes connections until it is dropped, or nobody takes the orders any more.
    pub async fn run(self, orders: mpsc::Sender<Order>) {
        let places = Arc::new(Semaphore::new(Self::CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = orders.closed() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(path = %self.path.display(), %error, "cannot take a connection for control");
                    time::sleep(Self::REST).await;
                    continue;
                }
            };
            let peer = stream.peer_cred().map(|peer| peer.uid());
            if !peer.as_ref().is_ok_and(|uid| [self.owner, ROOT].contains(uid)) {
                warn!(?peer, "somebody else tried to control the gateway");
                continue;
            }
            let orders = orders.clone();
            tokio::spawn(async move {
                let _place = place;
                match time::timeout(PATIENCE, serve(stream, orders)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!(%error, "a connection for control broke off"),
                    Err(_) => debug!("a connection for control took too long"),
                }
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve(mut stream: UnixStream, orders: mpsc::Sender<Order>) -> io::Result<()> {
    let answer = match read(&mut stream).await? {
        Ok(command) => order(command, &orders).await,
        Err(what) => Answer::failed(what, Some("gateway and command are perhaps of two versions".to_owned())),
    };
    let mut line = Zeroizing::new(serde_json::to_vec(&answer)?);
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await
}

async fn read(stream: &mut UnixStream) -> io::Result<Result<Command, &'static str>> {
    let mut line = Zeroizing::new(Vec::with_capacity(4096));
    tokio::io::BufReader::new(stream.take(LONGEST_COMMAND)).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Ok(Err("the command is not one whole line"));
    }
    // What is wrong with it is not repeated: a token may be in it.
    Ok(serde_json::from_slice(&line).map_err(|_| "the command is not understood"))
}

async fn order(command: Command, orders: &mpsc::Sender<Order>) -> Answer {
    let (answer, answered) = oneshot::channel();
    let stopping = || Answer::failed("the gateway is stopping", None);
    if orders.send(Order { command, answer }).await.is_err() {
        return stopping();
    }
    answered.await.unwrap_or_else(|_| stopping())
}

/// Asks the gateway that listens there; none, if none does. Blocks until it has answered.
///
/// # Errors
/// The system says no, or the gateway does not answer.
pub fn ask(path: &Path, command: &Command) -> Result<Option<Answer>, ControlError> {
    let fail = |source| ControlError::Io { path: path.to_owned(), source };
    let mut stream = match net::UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(fail(error)),
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(fail)?;
    let mut line = Zeroizing::new(serde_json::to_vec(command).map_err(|error| fail(error.into()))?);
    line.push(b'\n');
    stream.write_all(&line).map_err(fail)?;
    let mut answer = Zeroizing::new(Vec::with_capacity(4096));
    let no_answer = || ControlError::NoAnswer(path.to_owned());
    match BufReader::new(stream.take(LONGEST_ANSWER)).read_until(b'\n', &mut answer) {
        Ok(_) => {}
        Err(error) => {
            return Err(match error.kind() {
                // The first two say that the time is over.
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::ConnectionReset => {
                    no_answer()
                }
                _ => fail(error),
            });
        }
    }
    serde_json::from_slice(&answer).map(Some).map_err(|_| no_answer())
}

/// A socket that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Another gateway has it.
    #[error("another gateway listens on {}", .0.display())]
    Taken(PathBuf),
    /// There is a file in its place.
    #[error("{} is there, and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// Who listens said nothing that is understood.
    #[error("the gateway that listens on {} gave no answer", .0.display())]
    NoAnswer(PathBuf),
    /// What the system says.
    #[error("cannot use the socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
