//! Text that people see, and the text forms of bytes.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::MAX_NAME_CHARS;

/// A name shown to people: one line, 1 to 64 characters, nothing invisible or directional in it.
///
/// Whatever moves a cursor, turns text around or cannot be seen is taken out when it is made, because a name ends up in terminals
/// and in the prompts of coding agents.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct DisplayName(Box<str>);

/// The name is empty once cleaned, or longer than 64 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1-64 visible characters")]
pub struct BadName;

/// The name could be taken for an audience: nobody could write to who bears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must not begin with @ or #, or be * or all")]
pub struct Unaddressable;

impl DisplayName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name from text that may be too long, which is cut: clients make names of host names and process ids. `None` when
    /// nothing visible is in it.
    pub fn clipped(text: &str) -> Option<Self> {
        let clean: String = one_line(text).chars().take(MAX_NAME_CHARS).collect();
        clean.trim_end().parse().ok()
    }

    /// The name as one that somebody chooses to be known by.
    ///
    /// # Errors
    /// [`Unaddressable`] when it begins with `@` or `#`, or is `*` or `all`: such words mean groups, topics and everybody.
    pub fn chosen(self) -> Result<Self, Unaddressable> {
        let is_an_audience = self.0.starts_with(['@', '#']) || *self.0 == *"*" || self.0.eq_ignore_ascii_case("all");
        if is_an_audience { Err(Unaddressable) } else { Ok(self) }
    }
}

impl FromStr for DisplayName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let clean = one_line(text);
        let fits = (1..=MAX_NAME_CHARS).contains(&clean.chars().count());
        fits.then(|| Self(clean.into())).ok_or(BadName)
    }
}

impl fmt::Display for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for DisplayName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DisplayName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// `text` without the characters that could break out of a line, reorder it, or hide in it; ends trimmed.
pub fn one_line(text: &str) -> String {
    text.chars().filter(|&c| !is_hidden(c)).collect::<String>().trim().to_owned()
}

/// The same for text of several lines: line feeds and tabs stay.
pub fn many_lines(text: &str) -> String {
    text.chars().filter(|&c| c == '\n' || c == '\t' || !is_hidden(c)).collect()
}

/// Whether a character can break out of a line, reorder it, or hide in it.
///
/// Besides control characters these are, of Unicode 16.0, all with the property `Default_Ignorable_Code_Point`
/// (`DerivedCoreProperties.txt`) or of the categories Cf, Zl and Zp (`DerivedGeneralCategory.txt`), and two that have neither
/// and look like nothing: the blank Braille pattern and the musical null notehead.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{034F}' | '\u{0600}'..='\u{0605}' | '\u{061C}' | '\u{06DD}' | '\u{070F}'
            | '\u{0890}'..='\u{0891}' | '\u{08E2}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{110BD}' | '\u{110CD}' | '\u{13430}'..='\u{1343F}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D159}'
            | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// A JSON object that is carried as it was written, byte for byte: `ext` of a message.
pub type Verbatim = Box<serde_json::value::RawValue>;

/// Decoded length of `text` when it is standard base64 with padding.
pub fn base64_len(text: &str) -> Option<usize> {
    // Decoding is the only complete check (alphabet, padding, trailing bits), and costs little beside the commit.
    BASE64.decode(text.as_bytes()).ok().map(|bytes| bytes.len())
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Bytes of standard base64 with padding; `None` when it is not.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).ok()
}

/// URL-safe base64 without padding.
pub fn base64url(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

/// Bytes of URL-safe base64 without padding; `None` when it is not.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_removed_from_names() {
        let name: DisplayName = " An\u{202E}n\n\u{200B}\u{E0041}a\u{7} ".parse().unwrap();
        assert_eq!(name.as_str(), "Anna");
    }

    #[test]
    fn blank_letters_and_fillers_are_hidden_too() {
        for c in ['\u{34F}', '\u{115F}', '\u{1160}', '\u{17B4}', '\u{17B5}', '\u{2800}', '\u{3164}', '\u{FFA0}'] {
            assert_eq!(c.to_string().parse::<DisplayName>(), Err(BadName), "{c:?}");
            assert_eq!(many_lines(&format!("a{c}b")), "ab", "{c:?}");
        }
    }

    #[test]
    fn whatever_is_ignored_by_default_or_formats_is_hidden() {
        let ends = "180B 180F 0600 06DD 070F 08E2 FFF0 FFF8 FFFB 110CD 13430 1343F 1BCA0 1BCA3 1D159 1D173 1D17A E0FFF";
        for c in ends.split(' ').map(|code| char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap()) {
            assert_eq!(c.to_string().parse::<DisplayName>(), Err(BadName), "{c:?}");
        }
        let shown = "A\u{05FF}\u{1809}\u{1D158}\u{1D172}\u{1342F}\u{1F600}";
        assert_eq!(one_line(shown), shown);
    }

    #[test]
    fn what_means_an_audience_is_no_name_to_choose() {
        for text in ["@dev", "#topic", "*", "all", "ALL", " \u{200B}@x"] {
            assert_eq!(text.parse::<DisplayName>().unwrap().chosen(), Err(Unaddressable), "{text}");
        }
        for text in ["a@b", "C#", "**", "Allan", "all of us"] {
            assert!(text.parse::<DisplayName>().unwrap().chosen().is_ok(), "{text}");
        }
    }

    #[test]
    fn empty_and_long_names_are_refused() {
        for text in ["", " \n", "\u{200B}", &"x".repeat(65)] {
            assert_eq!(text.parse::<DisplayName>(), Err(BadName));
        }
        assert!("ü".repeat(64).parse::<DisplayName>().is_ok());
    }

    #[test]
    fn a_long_name_can_be_cut() {
        assert_eq!(DisplayName::clipped(&"x".repeat(80)).unwrap().as_str().len(), 64);
        assert_eq!(DisplayName::clipped("\u{200B} "), None);
    }

    #[test]
    fn base64_must_be_padded_and_standard() {
        assert_eq!(base64_len("AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"), Some(24));
        assert_eq!(base64_len(""), Some(0));
        for text in ["AA", "AA=", "A-__", "AAA\n", "====", "AB=="] {
            assert_eq!(base64_len(text), None, "{text}");
        }
    }
}
