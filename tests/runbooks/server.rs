//! A PostgreSQL as an operator has one: started with `pg_ctl`, stopped with it, and killed.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use runlane::embedded;
use tempfile::TempDir;

use crate::support::postgres::{scratch, throw_away_in};

pub struct Server {
    home: TempDir,
    data: PathBuf,
    /// PostgreSQL's programs, those that must not run as root wrapped.
    pub programs: PathBuf,
}

impl Server {
    pub async fn start() -> Self {
        let mode = std::fs::Permissions::from_mode(0o711);
        let home =
            tempfile::Builder::new().prefix("runlane").permissions(mode).tempdir_in(scratch()).unwrap();
        let made = embedded::Cluster::start(&throw_away_in(home.path().join("made"))).await.unwrap();
        let data = made.data().to_owned();
        let program = std::fs::read_link(format!("/proc/{}/exe", made.pid())).unwrap();
        made.stop().await.unwrap();
        let owner = std::fs::metadata(&data).unwrap();
        let sockets = home.path().join("sockets");
        std::fs::create_dir(&sockets).unwrap();
        chown(&sockets, Some(owner.uid()), Some(owner.gid())).unwrap();
        let mut settings = OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        writeln!(
            settings,
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\ndynamic_shared_memory_type = mmap",
            sockets.display()
        )
        .unwrap();
        let programs = home.path().join("programs");
        install(&programs, program.parent().unwrap(), owner.uid(), owner.gid());
        let server = Self { home, data, programs };
        server.pg_ctl(&["start", "--silent", "--wait", "--log", "/dev/null"]);
        server
    }

    pub fn url(&self) -> String {
        format!(
            "postgres://runlane@localhost:5432/runlane?host={}",
            self.home.path().join("sockets").display()
        )
    }

    pub fn data(&self) -> &str {
        self.data.to_str().unwrap()
    }

    /// A directory that the server's user may write.
    pub fn room(&self, name: &str) -> PathBuf {
        let (owner, room) = (std::fs::metadata(&self.data).unwrap(), self.home.path().join(name));
        std::fs::create_dir(&room).unwrap();
        chown(&room, Some(owner.uid()), Some(owner.gid())).unwrap();
        room
    }

    /// The URL of another database of it.
    pub fn admin_url(&self) -> String {
        self.url().replace("/runlane?", "/postgres?")
    }

    /// Another cluster's server, started by somebody else in its place, ends with this one.
    pub fn is_followed_by(&mut self, data: PathBuf) {
        self.data = data;
    }

    /// It ends as by a crash, all of it.
    pub fn crash(&self) {
        self.pg_ctl(&["stop", "--silent", "--mode", "immediate"]);
    }

    pub fn is_up(&self) -> bool {
        self.run_pg_ctl(&["status"])
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        assert!(self.run_pg_ctl(arguments), "pg_ctl {arguments:?}");
    }

    fn run_pg_ctl(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new(self.programs.join("pg_ctl"));
        command.args(arguments).arg("--pgdata").arg(&self.data).stdin(Stdio::null()).stdout(Stdio::null());
        command.status().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_up() {
            self.crash();
        }
    }
}

/// Links to all programs in `from`; a server's programs refuse root, so root types them as the server's user does.
fn install(programs: &Path, from: &Path, uid: u32, gid: u32) {
    std::fs::create_dir(programs).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (name, real) = (entry.file_name(), entry.path());
        let at = programs.join(&name);
        if name != "pg_ctl" && name != "pg_basebackup" || !nix::unistd::geteuid().is_root() {
            std::os::unix::fs::symlink(&real, &at).unwrap();
            continue;
        }
        let script = format!(
            "#!/bin/sh\nexec setpriv --reuid={uid} --regid={gid} --clear-groups '{}' \"$@\"\n",
            real.display()
        );
        std::fs::write(&at, script).unwrap();
        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}
