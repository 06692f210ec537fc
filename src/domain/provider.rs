//! The providers of models: which there are, and what a node needs to serve each.

use std::fmt;

/// A provider that this build's workers can call, given what it needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Provider {
    /// What stands before the `/` of a model's id.
    pub name: &'static str,
    /// What its workers are told; `None` for one that needs nothing.
    pub access: Option<Access>,
}

/// The variables of a provider, in the environment of the server and of its own workers only.
#[derive(Debug, PartialEq, Eq)]
pub struct Access {
    /// The API key. Workers know it by this name.
    pub key: &'static str,
    /// Another name under which people may have the key; it counts where `key` is not set.
    pub key_alias: Option<&'static str>,
    /// The base URL of the API.
    pub base_url: &'static str,
    /// Without which of the two nobody can be called.
    pub needs: Need,
}

/// What a provider cannot be called without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Its key; where it is, is known.
    Key,
    /// Its base URL; a key it may not want.
    BaseUrl,
}

impl Access {
    /// The variable that must be set for the provider to be served.
    #[must_use]
    pub const fn needed(&self) -> &'static str {
        match self.needs {
            Need::Key => self.key,
            Need::BaseUrl => self.base_url,
        }
    }

    /// Every variable.
    pub fn variables(&self) -> impl Iterator<Item = &'static str> {
        [Some(self.key), self.key_alias, Some(self.base_url)].into_iter().flatten()
    }
}

const fn keyed(name: &'static str, key: &'static str, base_url: &'static str) -> Provider {
    Provider { name, access: Some(Access { key, key_alias: None, base_url, needs: Need::Key }) }
}

const fn placed(name: &'static str, key: &'static str, base_url: &'static str) -> Provider {
    Provider { name, access: Some(Access { key, key_alias: None, base_url, needs: Need::BaseUrl }) }
}

/// Every known provider: the one list. Workers have theirs in `runlane_worker/providers`; a test compares the two.
pub const PROVIDERS: &[Provider] = &[
    Provider { name: "mock", access: None },
    keyed("openai", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    keyed("anthropic", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    Provider {
        name: "google",
        access: Some(Access {
            key: "GOOGLE_API_KEY",
            key_alias: Some("GEMINI_API_KEY"),
            base_url: "GOOGLE_BASE_URL",
            needs: Need::Key,
        }),
    },
    keyed("mistral", "MISTRAL_API_KEY", "MISTRAL_BASE_URL"),
    keyed("cohere", "COHERE_API_KEY", "COHERE_BASE_URL"),
    keyed("deepseek", "DEEPSEEK_API_KEY", "DEEPSEEK_BASE_URL"),
    keyed("groq", "GROQ_API_KEY", "GROQ_BASE_URL"),
    keyed("xai", "XAI_API_KEY", "XAI_BASE_URL"),
    keyed("openrouter", "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL"),
    placed("ollama", "OLLAMA_API_KEY", "OLLAMA_BASE_URL"),
    placed("openai-compatible", "OPENAI_COMPATIBLE_API_KEY", "OPENAI_COMPATIBLE_BASE_URL"),
];

/// The provider of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|p| p.name == name)
}

/// The names, separated by commas.
pub(super) struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, provider) in PROVIDERS.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { ", " } else { "" }, provider.name)?;
        }
        Ok(())
    }
}
