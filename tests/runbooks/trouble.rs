//! Models that are in trouble until somebody ends it.

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::support::app::python;

/// While it lasts, `mock/…?trouble=down` fails, `?trouble=crash` kills its worker, and `?trouble=slow` does not answer.
/// `&while=NAME` is another trouble, with an end of its own.
pub struct Trouble {
    home: TempDir,
    python: String,
}

impl Trouble {
    /// These have begun; one without a name is `lasts`.
    pub fn begin(names: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let script = format!(
            "#!/bin/sh\nPYTHONPATH='{}' TROUBLE='{}' exec '{}' \"$@\"\n",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/runbooks/python"),
            home.path().display(),
            python().display()
        );
        let interpreter = home.path().join("python");
        std::fs::write(&interpreter, script).unwrap();
        std::fs::set_permissions(&interpreter, std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in names {
            std::fs::write(home.path().join(name), "").unwrap();
        }
        let python = interpreter.to_str().unwrap().to_owned();
        Self { home, python }
    }

    /// The interpreter of nodes whose models it strikes.
    pub fn python(&self) -> (&'static str, &str) {
        ("RUNLANE_PYTHON", &self.python)
    }

    pub fn end(&self, name: &str) {
        std::fs::remove_file(self.home.path().join(name)).unwrap();
    }
}
