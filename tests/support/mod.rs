//! What the integration tests share.

pub mod app;
pub mod direct;
pub mod disk;
pub mod pages;
pub mod postgres;
pub mod proxy;
pub mod shell;
pub mod sockets;
pub mod stub;
