//! The life of one warm process, from its start to its burial, in one task.

use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{Fuse, FusedFuture, join};
use nix::sys::signal::Signal;

use super::streams::{ReadEnd, read_lines};
use super::verdict::Ending;
use super::worker::{Death, Worker};
use super::workplace::Workplace;
use crate::process::{Group, Pipes};

/// Starts the process and stays with it until it is reaped and every job of it has its outcome.
pub(super) async fn live(worker: Arc<Worker>, workplace: &Workplace) -> Death {
    let guard = Undertaker(&worker);
    let (mut group, pipes, desk) = match workplace.start(&worker.settings, true).await {
        Ok(started) => started,
        Err(error) => {
            return Death { barren: true, message: format!("the worker could not be started: {error}") };
        }
    };
    let pid = group.pid();
    worker.pid.set(pid).expect("a worker is started once");
    tracing::debug!(pid, "warm worker started");

    let mut pumps = pin!(pump(&worker, pipes).fuse());
    let by_itself = alongside(pumps.as_mut(), until_end(&worker, &mut group)).await;
    let (by_itself, status) = match by_itself {
        Ok(by_itself) => (by_itself, alongside(pumps.as_mut(), group.reap()).await),
        Err(error) => (false, Err(error)),
    };
    let status =
        status.inspect_err(|error| tracing::error!(pid, %error, "a worker's end could not be observed")).ok();
    // What it wrote last is still in the pipes. Whoever left its group may hold them open for ever.
    if !pumps.is_terminated() && tokio::time::timeout(worker.settings.term_grace, pumps).await.is_err() {
        tracing::warn!(pid, "a worker is gone, but something that it started keeps its streams open");
    }
    desk.clear().await;
    std::mem::forget(guard);
    worker.bury(status, by_itself)
}

/// Buries the worker when its task panics or is dropped: no job may wait for an answer that cannot come.
struct Undertaker<'a>(&'a Worker);

impl Drop for Undertaker<'_> {
    fn drop(&mut self) {
        self.0.bury(None, false);
    }
}

/// Waits for the reason to end, then for the end. True when nobody had to kill the process.
async fn until_end(worker: &Worker, group: &mut Group) -> std::io::Result<bool> {
    let exited = tokio::select! {
        ended = group.exited() => { ended?; true }
        () = worker.ends.notified() => false,
        () = worker.ready.notified() => tokio::select! {
            ended = group.exited() => { ended?; true }
            () = worker.ends.notified() => false,
        },
        () = tokio::time::sleep(worker.settings.start_timeout) => {
            worker.end(Ending::NoHello);
            false
        }
    };
    if exited {
        return Ok(true);
    }
    tokio::select! {
        ended = lay_down(worker, group) => ended,
        () = worker.aborts.notified() => {
            group.signal(Signal::SIGKILL)?;
            group.exited().await?;
            Ok(false)
        }
    }
}

async fn lay_down(worker: &Worker, group: &mut Group) -> std::io::Result<bool> {
    let patience = worker.patience();
    if !patience.is_zero()
        && let Ok(ended) = tokio::time::timeout(patience, group.exited()).await
    {
        return ended.map(|()| true);
    }
    group.end(worker.settings.term_grace).await?;
    Ok(false)
}

/// Moves bytes between the process and `worker` until the process has closed both its outputs.
async fn pump(worker: &Worker, Pipes { stdin, stdout, stderr }: Pipes) {
    let max_bytes = worker.settings.line_max_bytes;
    let reading = async {
        match read_lines(stdout, max_bytes, |line| worker.hear(line)).await {
            Ok(ReadEnd::Eof { rest }) => worker.end(Ending::StdoutClosed { rest }),
            Ok(ReadEnd::TooLong) => worker.end(Ending::TooLong(max_bytes)),
            Ok(ReadEnd::Stopped) => {}
            Err(error) => worker.end(Ending::Malformed(format!("its stdout cannot be read: {error}"))),
        }
    };
    let writing = async {
        worker.write(stdin).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = join(reading, worker.tail.drain(stderr)) => {}
        () = writing => {}
    }
}

/// Runs `work` to its end, and `pumps` beside it.
async fn alongside<T>(
    mut pumps: Pin<&mut Fuse<impl Future<Output = ()>>>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = &mut pumps => {}
    }
    work.await
}
