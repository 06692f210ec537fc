//! The keys and places of the models' providers.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::example::Setting;
use super::source::Source;
use crate::domain::provider::{Access, Need, PROVIDERS};

/// How a provider is reached that this process's workers can call.
#[derive(Debug, Clone, Default)]
pub struct ProviderAccess {
    /// The API key.
    pub key: Option<SecretString>,
    /// The base URL, where it is not the usual one.
    pub base_url: Option<String>,
}

/// The providers that this process's workers can call, by name.
#[derive(Debug, Clone, Default)]
pub struct Providers(BTreeMap<&'static str, ProviderAccess>);

impl Providers {
    pub(super) fn read(source: &mut Source<'_>) -> Self {
        let mut served = BTreeMap::new();
        for provider in PROVIDERS {
            let access = provider.access.as_ref().map(|access| read(source, access));
            if let Some(access) = access.unwrap_or_else(|| Some(ProviderAccess::default())) {
                served.insert(provider.name, access);
            }
        }
        Self(served)
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.keys().map(|&name| name.to_owned()).collect()
    }

    /// How each is reached.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &ProviderAccess)> {
        self.0.iter().map(|(&name, access)| (name, access))
    }
}

/// How it is reached; `None` when what it needs is not there.
fn read(source: &mut Source<'_>, access: &Access) -> Option<ProviderAccess> {
    let key = key(source, access.key).or_else(|| access.key_alias.and_then(|alias| key(source, alias)));
    let base_url = base_url(source, access);
    let is_served = match access.needs {
        Need::Key => key.is_some(),
        Need::BaseUrl => base_url.is_some(),
    };
    is_served.then_some(ProviderAccess { key, base_url })
}

fn key(source: &mut Source<'_>, variable: &str) -> Option<SecretString> {
    let text = source.text(variable)?;
    if text.chars().all(|c| c.is_ascii_graphic()) {
        return Some(text.into());
    }
    // The value is a secret, so that only its kind of mistake is told.
    source.problem(variable, "has a character that no key has: give visible ASCII characters without spaces");
    None
}

fn base_url(source: &mut Source<'_>, access: &Access) -> Option<String> {
    let text = source.text(access.base_url)?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).filter(|host| !host.is_empty());
    match host {
        Some(host) if host.contains('@') => {
            let message = format!("has a name or a password in it: give the key in {}", access.key);
            source.problem(access.base_url, message);
            None
        }
        Some(_) if text.chars().all(|c| c.is_ascii_graphic()) => Some(text),
        _ => {
            let message =
                "is no URL: give scheme, host and path, such as https://models.example.org/v1".to_owned();
            source.problem(access.base_url, message);
            None
        }
    }
}

/// Every variable of a provider, which no other worker may get.
pub(super) fn is_of_a_provider(variable: &str) -> bool {
    PROVIDERS.iter().filter_map(|p| p.access.as_ref()).any(|a| a.variables().any(|v| v == variable))
}

pub(super) fn settings() -> Vec<Setting> {
    let mut all = Vec::new();
    for (provider, access) in PROVIDERS.iter().filter_map(|p| Some((p.name, p.access.as_ref()?))) {
        let (key, url) = match access.needs {
            Need::Key => (
                format!(
                    "The API key for models {provider}/…; without it their jobs wait. Only their own workers get it. A secret."
                ),
                format!("Where {provider} is called, for a gateway or a proxy; without it, its own address."),
            ),
            Need::BaseUrl => (
                format!(
                    "The API key for models {provider}/…, where one is wanted. Only their own workers get it. A secret."
                ),
                format!(
                    "Where models {provider}/… are called, in OpenAI's format, such as http://localhost:11434/v1; without it their jobs wait."
                ),
            ),
        };
        let setting = |variable, range: &str, doc: String| Setting {
            variable,
            default: String::new(),
            range: range.to_owned(),
            doc: doc.leak(),
        };
        all.push(setting(access.key, "visible ASCII characters", key));
        if let Some(alias) = access.key_alias {
            let doc = format!("Another name of {}, which goes before it. A secret.", access.key);
            all.push(setting(alias, "visible ASCII characters", doc));
        }
        all.push(setting(access.base_url, "http:// or https://, a host and a path", url));
    }
    all
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use crate::config::{Config, ConfigError};

    fn config(set: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let set: Vec<(String, String)> = set.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Config::from_lookup(&move |name| set.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    }

    #[test]
    fn a_provider_is_served_when_what_it_needs_is_there() {
        let served = |set: &[(&str, &str)]| config(set).unwrap().providers.names();
        assert_eq!(served(&[]), ["mock"]);
        assert_eq!(served(&[("OPENAI_API_KEY", "sk-1"), ("ANTHROPIC_API_KEY", " ")]), ["mock", "openai"]);
        assert_eq!(served(&[("OPENAI_COMPATIBLE_API_KEY", "k")]), ["mock"], "nobody knows where it is");
        let ollama = ("OLLAMA_BASE_URL", "http://localhost:11434/v1");
        assert_eq!(served(&[ollama]), ["mock", "ollama"]);
    }

    #[test]
    fn the_usual_name_of_a_key_goes_before_the_other() {
        let key = |set: &[(&str, &str)]| {
            let config = config(set).unwrap();
            let (_, google) = config.providers.iter().find(|(name, _)| *name == "google").unwrap();
            google.key.as_ref().unwrap().expose_secret().to_owned()
        };
        assert_eq!(key(&[("GEMINI_API_KEY", "gemini")]), "gemini");
        assert_eq!(key(&[("GEMINI_API_KEY", "gemini"), ("GOOGLE_API_KEY", "google")]), "google");
    }

    #[test]
    fn a_key_or_a_url_that_cannot_be_is_refused_without_being_shown() {
        for (variable, value, says) in [
            ("OPENAI_API_KEY", "sk-se\u{e9}cret", "no key has"),
            ("OPENAI_BASE_URL", "models.example.org", "is no URL"),
            ("OPENAI_BASE_URL", "https:///v1", "is no URL"),
            ("OPENAI_BASE_URL", "https://ada:sesame@models.example.org/v1", "OPENAI_API_KEY"),
            ("RUNLANE_WORKER_ENV", "HF_HOME,OPENAI_API_KEY", "OPENAI_API_KEY"),
        ] {
            let ConfigError(problems) = config(&[(variable, value)]).unwrap_err();
            assert_eq!((problems.len(), problems[0].variable.as_str()), (1, variable));
            assert!(problems[0].message.contains(says), "{}", problems[0].message);
            assert!(!problems[0].message.contains("cret") && !problems[0].message.contains("sesame"));
        }
    }

    #[test]
    fn no_key_shows_when_a_configuration_is_printed() {
        let config = config(&[("OPENAI_API_KEY", "sk-very-secret")]).unwrap();
        assert!(!format!("{config:?}").contains("sk-very-secret"));
    }
}
