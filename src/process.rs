//! Starts child processes that cannot outlive this one.
//!
//! Every child leads a process group of its own and is sent a signal when this process ends, however it ends. Linux
//! ties that signal to the *thread* that forked, so all children are forked by one thread that lives as long as the
//! process.

use std::io;
use std::sync::{OnceLock, mpsc};

use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

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

/// Starts `command` as the leader of a new process group. It gets `death_signal` when this process ends, and SIGKILL
/// when the returned [`Child`] is dropped before it was waited for.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// What the operating system says when it cannot start the program.
pub async fn spawn(mut command: Command, death_signal: Signal) -> io::Result<Child> {
    let (answer, started) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let task: Task = Box::new(move || {
        let _guard = runtime.enter();
        command.process_group(0).kill_on_drop(true);
        die_with_parent(&mut command, death_signal);
        // The receiver is gone only when the caller was dropped; the child is then killed with the `Child`.
        drop(answer.send(command.spawn()));
    });
    forker().send(task).map_err(|_| io::Error::other("the forking thread is gone"))?;
    started.await.map_err(|_| io::Error::other("the forking thread gave no answer"))?
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "pre_exec is the only way to set the parent-death signal")]
fn die_with_parent(command: &mut Command, death_signal: Signal) {
    let parent = nix::unistd::getpid();
    let hook = move || {
        nix::sys::prctl::set_pdeathsig(death_signal)?;
        if nix::unistd::getppid() == parent {
            Ok(())
        } else {
            // The parent died between fork and prctl: nobody would send the signal any more.
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        }
    };
    // SAFETY: between fork and exec the hook makes two system calls and allocates nothing.
    unsafe { command.pre_exec(hook) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command, _death_signal: Signal) {}

/// Sends `signal` to the process group that `child` leads. A child that is already reaped is left alone.
///
/// # Errors
/// What the operating system says, save that a group that is gone is no error.
pub fn signal_group(child: &Child, signal: Signal) -> io::Result<()> {
    let Some(pid) = child.id() else { return Ok(()) };
    match nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid.cast_signed()), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
