//! Commands that act on a running installation, by way of its database.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;

use crate::app;
use crate::config::Config;
use crate::domain::{Requester, Role, ids};
use crate::service::Service;

/// In whose name a command acts.
#[derive(Debug, Default, Args)]
pub struct Acting {
    /// The name that the audit gets; by default cli: and your user on this machine.
    #[arg(long = "as", value_name = "NAME", value_parser = name)]
    name: Option<String>,
}

fn name(text: &str) -> Result<String, &'static str> {
    let is_name = !text.trim().is_empty() && text.chars().count() <= 200 && !text.contains(char::is_control);
    if is_name { Ok(text.trim().to_owned()) } else { Err("give a name of up to 200 characters on one line") }
}

impl Acting {
    /// Whoever has the database's URL does everything; the audit says who it was.
    ///
    /// # Errors
    /// When no name is given and this machine does not know the user.
    pub fn requester(&self) -> anyhow::Result<Requester> {
        let subject = match &self.name {
            Some(name) => name.clone(),
            None => {
                let uid = nix::unistd::geteuid();
                let user = nix::unistd::User::from_uid(uid).context("cannot look your user up")?;
                format!("cli:{}", user.map_or_else(|| uid.to_string(), |user| user.name))
            }
        };
        Ok(Requester {
            subject,
            role: Role::Admin,
            group: None,
            request_id: format!("cli-{}", ids::new_id()),
        })
    }
}

/// The services over the configured database, whose schema must be of this version.
///
/// # Errors
/// When it cannot be reached, or its schema is of another version.
pub async fn service(config: Config) -> anyhow::Result<Service> {
    Ok(app::service(&Arc::new(config)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_some_text_on_one_line() {
        assert_eq!(name(" ada "), Ok("ada".to_owned()));
        for wrong in ["", "  ", "a\nb", &"x".repeat(201)] {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
    }
}
