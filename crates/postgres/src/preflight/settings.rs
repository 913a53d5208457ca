//! The server's settings, with their units.

use std::collections::HashMap;

/// Settings of a server as our own session has them.
#[derive(Debug, Default)]
pub(super) struct Settings(HashMap<String, Setting>);

/// A setting as `pg_settings` shows it.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) value: String,
    pub(super) unit: Option<String>,
    /// What it is where nobody set it.
    pub(super) built_in: Option<String>,
}

impl FromIterator<(String, Setting)> for Settings {
    fn from_iter<I: IntoIterator<Item = (String, Setting)>>(settings: I) -> Self {
        Self(settings.into_iter().collect())
    }
}

impl Settings {
    /// The value as text; none where this version has no such setting or we may not see it.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|setting| setting.value.as_str())
    }

    /// What it is where nobody set it.
    pub(super) fn built_in(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.built_in.as_deref()
    }

    /// A number without a unit.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// A size in bytes; negative where it means none.
    pub(super) fn bytes(&self, name: &str) -> Option<i64> {
        self.scaled(name, |unit| match unit {
            "B" => Some(1),
            "kB" => Some(1 << 10),
            "8kB" => Some(8 << 10),
            "MB" => Some(1 << 20),
            _ => None,
        })
    }

    /// A time in milliseconds; 0 where it means never.
    pub(super) fn millis(&self, name: &str) -> Option<i64> {
        self.scaled(name, |unit| match unit {
            "ms" => Some(1),
            "s" => Some(1000),
            "min" => Some(60_000),
            _ => None,
        })
    }

    fn scaled(&self, name: &str, factor: fn(&str) -> Option<i64>) -> Option<i64> {
        let setting = self.0.get(name)?;
        let value: i64 = setting.value.parse().ok()?;
        let factor = factor(setting.unit.as_deref()?)?;
        Some(if value < 0 { value } else { value.saturating_mul(factor) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_heeded() {
        let setting = |value: &str, unit: &str| Setting { value: value.into(), unit: Some(unit.into()), built_in: None };
        let settings: Settings = [
            ("keep".to_owned(), setting("64", "MB")),
            ("none".to_owned(), setting("-1", "MB")),
            ("wait".to_owned(), setting("2", "min")),
            ("odd".to_owned(), setting("2", "parsec")),
        ]
        .into_iter()
        .collect();
        assert_eq!(settings.bytes("keep"), Some(64 << 20));
        assert_eq!(settings.bytes("none"), Some(-1));
        assert_eq!(settings.millis("wait"), Some(120_000));
        assert_eq!((settings.millis("odd"), settings.bytes("absent")), (None, None));
    }
}
