//! Starts child processes that cannot outlive this one.
//!
//! Every child leads a session and a process group of its own, and is sent a signal when this process ends, however it
//! ends. Linux ties that signal to the *thread* that forked, so all children are forked by one thread that lives as long
//! as the process. What a child has started in turn is found by [`kin`], also where it left the group and the session.

pub mod kin;
mod limits;

use std::io;
use std::process::ExitStatus;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use kin::Mark;
pub use limits::Limits;
use limits::Prepared;

type Task = Box<dyn FnOnce() + Send>;

/// The thread that forks; it never ends.
fn forker() -> &'static mpsc::Sender<Task> {
    static FORKER: OnceLock<mpsc::Sender<Task>> = OnceLock::new();
    FORKER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Task>();
        std::thread::Builder::new()
            .name("forker".into())
            .spawn(move || receiver.into_iter().for_each(|task| task()))
            .expect("the operating system starts a thread");
        sender
    })
}

/// Starts `command` as the leader of a new session and process group. It gets `death_signal` when this process ends, and
/// SIGKILL when the returned [`Child`] is dropped before it was waited for.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// What the operating system says when it cannot start the program.
pub async fn spawn(command: Command, death_signal: Signal) -> io::Result<Child> {
    spawn_within(command, death_signal, Limits::default()).await
}

async fn spawn_within(mut command: Command, death_signal: Signal, limits: Limits) -> io::Result<Child> {
    let (answer, started) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let limits = limits.prepare()?;
    let task: Task = Box::new(move || {
        let _guard = runtime.enter();
        command.kill_on_drop(true);
        before_exec(&mut command, death_signal, limits);
        // The receiver is gone only when the caller was dropped; the child is then killed with the `Child`.
        drop(answer.send(command.spawn()));
    });
    forker().send(task).map_err(|_| io::Error::other("the forking thread is gone"))?;
    started.await.map_err(|_| io::Error::other("the forking thread gave no answer"))?
}

/// What the child does to itself before it becomes the program.
#[expect(
    unsafe_code,
    reason = "pre_exec is the only way to set a session, limits and the parent-death signal"
)]
fn before_exec(command: &mut Command, death_signal: Signal, limits: Prepared) {
    let parent = nix::unistd::getpid();
    let hook = move || {
        nix::unistd::setsid()?;
        limits.apply()?;
        die_with_parent(parent, death_signal)
    };
    // SAFETY: between fork and exec the hook makes system calls only and allocates nothing.
    unsafe { command.pre_exec(hook) };
}

#[cfg(target_os = "linux")]
fn die_with_parent(parent: Pid, death_signal: Signal) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(death_signal)?;
    if nix::unistd::getppid() == parent {
        Ok(())
    } else {
        // The parent died between fork and prctl: nobody would send the signal any more.
        Err(io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_parent: Pid, _death_signal: Signal) -> io::Result<()> {
    Ok(())
}

/// Sends `signal` to the process group that `child` leads. A child that is already reaped is left alone.
///
/// # Errors
/// What the operating system says, save that a group that is gone is no error.
pub fn signal_group(child: &Child, signal: Signal) -> io::Result<()> {
    let Some(pid) = child.id() else { return Ok(()) };
    match nix::sys::signal::killpg(Pid::from_raw(pid.cast_signed()), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A child with all that it has started. Whoever is left of them is killed before the child is reaped, or when this is
/// dropped: while the child is not reaped, nobody else can have the number of its group and session.
#[derive(Debug)]
pub struct Group {
    child: Child,
    pid: u32,
    mark: Mark,
}

/// The pipes of a child whose three streams were piped.
#[derive(Debug)]
pub struct Pipes {
    /// Where the child reads.
    pub stdin: ChildStdin,
    /// What the child writes.
    pub stdout: ChildStdout,
    /// What the child writes for people.
    pub stderr: ChildStderr,
}

impl Group {
    /// Starts `command` as [`spawn`] does, within `limits` and with its three standard streams piped. The child gets
    /// SIGKILL when this process ends. `command` sets the mark in its environment.
    ///
    /// # Errors
    /// What the operating system says when it cannot start the program.
    pub async fn start(mut command: Command, limits: Limits, mark: Mark) -> io::Result<(Self, Pipes)> {
        use std::process::Stdio;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn_within(command, Signal::SIGKILL, limits).await?;
        match (child.id(), child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(pid), Some(stdin), Some(stdout), Some(stderr)) => {
                Ok((Self { child, pid, mark }, Pipes { stdin, stdout, stderr }))
            }
            _ => Err(io::Error::other("the child was started without its pipes")),
        }
    }

    /// The child's process id, which is its group's too.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends `signal` to the whole group.
    ///
    /// # Errors
    /// What the operating system says, save that a group that is gone is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        signal_group(&self.child, signal)
    }

    /// Waits until the child has ended, and leaves it unreaped where the system can. May be dropped and called again.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn exited(&mut self) -> io::Result<()> {
        exited(&mut self.child, self.pid).await
    }

    /// Asks the group to end with SIGTERM, gives it `grace`, then sends SIGKILL; returns when the child has ended.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn end(&mut self, grace: Duration) -> io::Result<()> {
        self.signal(Signal::SIGTERM)?;
        if let Ok(ended) = tokio::time::timeout(grace, self.exited()).await {
            return ended;
        }
        self.signal(Signal::SIGKILL)?;
        self.exited().await
    }

    /// Waits for the child's end, kills whoever is left of what it started, and reaps it.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn reap(mut self) -> io::Result<ExitStatus> {
        self.exited().await?;
        self.signal(Signal::SIGKILL)?;
        let (mark, pid) = (self.mark.clone(), self.pid);
        // The child is not reaped if this is dropped meanwhile: `drop` keeps the number until then.
        let ended = tokio::task::spawn_blocking(move || kin::end(&mark, Some(pid))).await?;
        report(pid, ended);
        self.child.wait().await
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A reaped child has no id, and then nothing is sent. The runtime reaps what it must after `kill_on_drop`.
        if let Err(error) = self.signal(Signal::SIGKILL) {
            tracing::warn!(pid = self.pid, %error, "a process group could not be killed");
        }
        if self.child.id().is_some() {
            // The runtime may reap the child at any moment, so its session is no proof any more. Nobody waits for this.
            let (mark, pid) = (self.mark.clone(), self.pid);
            std::thread::spawn(move || report(pid, kin::end(&mark, None)));
        }
    }
}

fn report(pid: u32, ended: io::Result<kin::Ended>) {
    match ended {
        Ok(ended) if ended.left.is_empty() => {
            if !ended.killed.is_empty() {
                tracing::info!(pid, killed = ended.killed.len(), "a worker left processes behind: killed");
            }
        }
        Ok(ended) => {
            tracing::error!(pid, left = ?ended.left, "processes that a worker left cannot be killed")
        }
        Err(error) => tracing::error!(pid, %error, "what a worker left behind cannot be found"),
    }
}

/// `Child::wait` would reap, and with that free the group's number while others may still be in the group.
#[cfg(target_os = "linux")]
async fn exited(child: &mut Child, pid: u32) -> io::Result<()> {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    if child.id().is_none() {
        return Ok(());
    }
    // Listen before looking, so that no end falls between the two.
    let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())?;
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    loop {
        match waitid(Id::Pid(Pid::from_raw(pid.cast_signed())), flags) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        if ended.recv().await.is_none() {
            return Err(io::Error::other("the runtime delivers no signals any more"));
        }
    }
}

#[cfg(not(target_os = "linux"))]
async fn exited(child: &mut Child, _pid: u32) -> io::Result<()> {
    child.wait().await.map(drop)
}
