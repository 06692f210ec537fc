//! Sockets that other processes may share.

use std::net::Shutdown;
use std::os::fd::OwnedFd;

use tokio::net::TcpListener;

/// Stops listening at once. A socket that is only dropped stays open as long as a process that another test is just
/// starting has it, between its fork and its exec: who connects meanwhile is taken, and then reset instead of refused.
pub fn close(listener: TcpListener) {
    let socket = OwnedFd::from(listener.into_std().expect("it leaves the runtime"));
    let shut = std::net::TcpStream::from(socket).shutdown(Shutdown::Read);
    shut.expect("a listening socket is shut down by its reading half");
}
