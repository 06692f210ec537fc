//! Model ids: `provider/name`, split at the first `/`.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use super::limits::Limits;
use super::provider;
use super::validation::{Checker, shorten};

/// The longest model id, in bytes.
pub const MODEL_ID_MAX_BYTES: usize = 300;

/// Whether errors of this model may hold its limit or its provider: those of the mock do only when its id asks for it.
#[must_use]
pub fn may_hold(model: &str) -> bool {
    model.strip_prefix("mock/").is_none_or(|name| {
        name.split_once('?').is_some_and(|(_, keys)| keys.split('&').any(|key| key == "hold=1"))
    })
}

/// A well-formed model id of a known provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelId {
    text: String,
    provider: &'static str,
}

impl ModelId {
    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the first `/`.
    #[must_use]
    pub const fn provider(&self) -> &'static str {
        self.provider
    }

    /// What stands after the first `/`; it may hold further ones.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.text[self.provider.len() + 1..]
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is no model id; the message follows the name of the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelIdError {
    /// Too many bytes.
    #[error("is too long ({shown} has {bytes} bytes): give at most {MODEL_ID_MAX_BYTES} bytes")]
    TooLong {
        /// The start of the text.
        shown: String,
        /// Its length.
        bytes: usize,
    },
    /// A space, a control character or one that shows nothing.
    #[error("{shown} has the character U+{code:04X} at byte {at}: give visible characters without spaces")]
    Character {
        /// The start of the text.
        shown: String,
        /// The character.
        code: u32,
        /// Where it is.
        at: usize,
    },
    /// No `/`, or nothing before or after it.
    #[error("{0} is no model id: give provider/name, such as mock/echo")]
    Form(String),
    /// The provider is none of [`provider::PROVIDERS`].
    #[error("{shown} names an unknown provider: give one of {}", provider::Names)]
    Provider {
        /// The start of the text.
        shown: String,
    },
}

fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

impl FromStr for ModelId {
    type Err = ModelIdError;

    fn from_str(text: &str) -> Result<Self, ModelIdError> {
        if text.len() > MODEL_ID_MAX_BYTES {
            return Err(ModelIdError::TooLong { shown: shorten(text), bytes: text.len() });
        }
        if let Some((at, c)) = text.char_indices().find(|(_, c)| is_invisible(*c)) {
            return Err(ModelIdError::Character { shown: shorten(text), code: c.into(), at });
        }
        let (provider, name) = text.split_once('/').ok_or_else(|| ModelIdError::Form(shorten(text)))?;
        if provider.is_empty() || name.is_empty() {
            return Err(ModelIdError::Form(shorten(text)));
        }
        let known =
            provider::find(provider).ok_or_else(|| ModelIdError::Provider { shown: shorten(text) })?;
        Ok(Self { text: text.to_owned(), provider: known.name })
    }
}

/// Checks the models of a run, a list where the checker is: some, not too many, well formed, each once.
///
/// A bad model is a mistake of the whole list's field, because clients know that field by its name.
pub fn check_models(checker: &mut Checker, models: &[String], limits: &Limits) -> Vec<ModelId> {
    if models.is_empty() {
        checker.error("is empty: give at least one model, such as mock/echo");
    }
    if models.len() > limits.models_max {
        checker.error(format!("has {} models: give at most {}", models.len(), limits.models_max));
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut ids = Vec::with_capacity(models.len());
    for model in models {
        match model.parse::<ModelId>() {
            Ok(_) if !seen.insert(model.as_str()) => {
                checker.error(format!("has {} twice: give each model once", shorten(model)));
            }
            Ok(id) => ids.push(id),
            Err(error) => checker.error(error.to_string()),
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Numbers;
    use proptest::prelude::*;

    #[test]
    fn splits_at_the_first_slash() {
        let id: ModelId = "openai-compatible/meta/llama?x=1".parse().unwrap();
        assert_eq!((id.provider(), id.name()), ("openai-compatible", "meta/llama?x=1"));
    }

    #[test]
    fn the_mock_holds_nothing_unless_it_says_so() {
        for (model, holds) in [
            ("mock/echo?fail=auth", false),
            ("mock/echo?fail=auth&hold=1", true),
            ("mock/echo?hold=10", false),
            ("openai/gpt", true),
        ] {
            assert_eq!(may_hold(model), holds, "{model}");
        }
    }

    #[test]
    fn each_kind_of_mistake_says_what_it_is() {
        let cases = [
            ("", "provider/name"),
            ("mock", "provider/name"),
            ("/echo", "provider/name"),
            ("mock/", "provider/name"),
            ("mock/a b", "U+0020"),
            ("mock/a\0", "U+0000"),
            ("mock/a\u{200b}", "U+200B"),
            ("nobody/x", "unknown provider"),
            ("Mock/echo", "unknown provider"),
        ];
        for (text, part) in cases {
            let message = text.parse::<ModelId>().unwrap_err().to_string();
            assert!(message.contains(part), "{text:?}: {message}");
        }
        let long = format!("mock/{}", "x".repeat(MODEL_ID_MAX_BYTES));
        assert!(long.parse::<ModelId>().unwrap_err().to_string().contains("at most 300 bytes"));
        assert!(long[..MODEL_ID_MAX_BYTES].parse::<ModelId>().is_ok());
    }

    fn mistakes(models: &[&str]) -> Vec<String> {
        let models: Vec<String> = models.iter().map(|&m| m.to_owned()).collect();
        let limits = Limits { models_max: 3, ..Numbers::default().limits() };
        let mut checker = Checker::new("models", 10);
        check_models(&mut checker, &models, &limits);
        checker.finish().err().map_or_else(Vec::new, |e| e.iter().map(|e| e.message.clone()).collect())
    }

    #[test]
    fn lists_are_neither_empty_nor_long_nor_repetitive() {
        assert_eq!(mistakes(&["mock/a", "mock/b", "google/c"]), [""; 0]);
        assert!(mistakes(&[])[0].contains("at least one"));
        assert!(mistakes(&["mock/a"; 4])[0].contains("at most 3"));
        assert!(mistakes(&["mock/a", "mock/a"])[0].contains("twice"));
        assert_eq!(mistakes(&["nobody/a", "mock", "mock/a"]).len(), 2);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            if let Ok(id) = text.parse::<ModelId>() {
                prop_assert_eq!(format!("{}/{}", id.provider(), id.name()), text);
            }
        }
    }
}
