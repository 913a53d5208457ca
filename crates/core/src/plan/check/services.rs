//! Traffic at a flag service that a team already has.

use ::url::Url;

use super::*;
use crate::plan::{FlagService, FlagsmithFlag, LaunchDarklyFlag, Secret, ServiceFlag, SplitFlag, UnleashFlag};

/// How long one call may take: less makes no call over a network, more than a pause has.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(60);

/// The kinds, each with the keys of its own.
pub(super) const KINDS: [(&str, &[&str]); 5] = [
    ("consul", &["key"]),
    ("flagsmith", &["environment", "flag", "source_segment", "target_segment", "attribute"]),
    ("launchdarkly", &["project", "environment", "flag", "context", "attribute"]),
    ("unleash", &["project", "environment", "flag", "attribute"]),
    ("split", &["workspace", "environment", "flag", "attribute"]),
];

/// The keys that each of them takes.
const SHARED: [&str; 8] = ["url", "token", "ca_file", "timeout", "settle", "source", "target", "through"];

/// The keys of a kind, if it is one of a service.
pub(super) fn keys(kind: &str) -> Option<Vec<&'static str>> {
    let (_, own) = KINDS.iter().find(|(known, _)| *known == kind)?;
    Some(own.iter().chain(&SHARED).copied().collect())
}

impl Reader<'_> {
    pub(super) fn service(&self, kind: &str, raw: &file::Traffic) -> Result<FlagService, PlanError> {
        let (flag, default_url) = self.service_flag(kind, raw)?;
        let token = raw.token.as_ref().map(|token| self.token(token)).transpose()?;
        if token.is_none() && !matches!(flag, ServiceFlag::Consul { .. }) {
            return Err(self.lacks(kind, "token", raw));
        }
        let timeout = self.duration(raw.timeout.as_ref(), Duration::from_secs(2))?;
        if !TIMEOUT.contains(&timeout) {
            let hint = "choose from 50ms to 60s: one call that is not answered by then is made again".to_owned();
            return Err(self.fault(raw.timeout.as_ref().map_or(0..0, Spanned::span), "`timeout` is out of range", Some(hint)));
        }
        Ok(FlagService {
            flag,
            url: match (&raw.url, default_url) {
                (Some(url), _) => self.service_url(url)?,
                (None, Some(default)) => default.to_owned(),
                (None, None) => return Err(self.lacks(kind, "url", raw)),
            },
            token,
            ca_file: raw.ca_file.as_ref().map(|path| self.expand(path).map(PathBuf::from)).transpose()?,
            timeout,
            settle: self.duration(raw.settle.as_ref(), Duration::ZERO)?,
            source: self.names(&raw.source)?,
            target: self.names(&raw.target)?,
            through: self.names(&raw.through)?,
        })
    }

    /// The flag, and where its service is if the plan does not say.
    fn service_flag(&self, kind: &str, raw: &file::Traffic) -> Result<(ServiceFlag, Option<&'static str>), PlanError> {
        let word = |key: &str, text: &Option<Text>| self.word(kind, key, text.as_ref(), raw);
        let or = |key: &str, text: &Option<Text>, default: &str| if text.is_some() { word(key, text) } else { Ok(default.to_owned()) };
        let (environment, flag) = (|| word("environment", &raw.environment), || word("flag", &raw.flag));
        let attribute = or("attribute", &raw.attribute, "database")?;
        Ok(match kind {
            "flagsmith" => {
                let segments =
                    [self.segment("source_segment", &raw.source_segment, raw)?, self.segment("target_segment", &raw.target_segment, raw)?];
                if let Some(second) = raw.target_segment.as_ref().filter(|_| segments[0] == segments[1]) {
                    let hint = "make one segment for those who are connected to the source, and another for the target".to_owned();
                    return Err(self.fault(second.span(), "both sides have the same segment", Some(hint)));
                }
                let flag = FlagsmithFlag { environment: environment()?, flag: flag()?, attribute, segments };
                (ServiceFlag::Flagsmith(flag), Some("https://api.flagsmith.com"))
            }
            "launchdarkly" => {
                let project = or("project", &raw.project, "default")?;
                let context = or("context", &raw.context, "user")?;
                let flag = LaunchDarklyFlag { project, environment: environment()?, flag: flag()?, context, attribute };
                (ServiceFlag::LaunchDarkly(flag), Some("https://app.launchdarkly.com"))
            }
            "unleash" => {
                let project = or("project", &raw.project, "default")?;
                (ServiceFlag::Unleash(UnleashFlag { project, environment: environment()?, flag: flag()?, attribute }), None)
            }
            "split" => {
                let workspace = word("workspace", &raw.workspace)?;
                let flag = SplitFlag { workspace, environment: environment()?, flag: flag()?, attribute };
                (ServiceFlag::Split(flag), Some("https://api.split.io"))
            }
            _ => (ServiceFlag::Consul { key: word("key", &raw.key)? }, None),
        })
    }

    fn segment(&self, key: &str, id: &Option<Spanned<u64>>, raw: &file::Traffic) -> Result<u64, PlanError> {
        id.as_ref().map(|id| *id.get_ref()).ok_or_else(|| self.lacks("flagsmith", key, raw))
    }

    /// A name that becomes part of a path: nothing that leads elsewhere.
    fn word(&self, kind: &str, key: &str, text: Option<&Text>, raw: &file::Traffic) -> Result<String, PlanError> {
        let text = text.ok_or_else(|| self.lacks(kind, key, raw))?;
        let word = self.expand(text)?;
        let leads_away = word.split('/').any(|part| part.is_empty() || part == "." || part == "..") || word.contains(char::is_control);
        if leads_away || (key != "key" && word.contains('/')) {
            let hint = "write it as the service shows it, without a slash at either end".to_owned();
            return Err(self.fault(text.span(), format!("`{word}` can't be a `{key}`"), Some(hint)));
        }
        Ok(word)
    }

    /// It goes into a header, and is never repeated in an error.
    fn token(&self, text: &Text) -> Result<Secret, PlanError> {
        let token = self.expand(text)?;
        if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
            let hint = "it is one word of letters, digits and signs; take it from the environment: token = \"${NAME}\"".to_owned();
            return Err(self.fault(text.span(), "this can't be a token", Some(hint)));
        }
        Ok(Secret::new(token))
    }

    fn service_url(&self, text: &Text) -> Result<String, PlanError> {
        let written = self.expand(text)?;
        let bad = |message: &str| {
            let hint = "write it like https://flags.example:8443, and what lets us in under `token`".to_owned();
            Err(self.fault(text.span(), message, Some(hint)))
        };
        let Ok(url) = Url::parse(&written) else { return bad("this is no URL") };
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return bad("a service's URL begins with http:// or https://");
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return bad("a service's URL has no user, query or fragment");
        }
        Ok(written)
    }

    fn lacks(&self, kind: &str, key: &str, raw: &file::Traffic) -> PlanError {
        self.fault(raw.kind.span(), format!("traffic of kind `{kind}` needs `{key}`"), None)
    }

    /// What is waited for inside the pause must leave time for all the rest.
    pub(super) fn settles(&self, raw: &File, plan: &Plan) -> Result<(), PlanError> {
        for (raw, traffic) in raw.traffic.iter().zip(&plan.traffic) {
            if let (Some(text), Traffic::Service(service)) = (&raw.settle, traffic)
                && service.settle > plan.pause.budget / 2
            {
                let hint = format!("it is part of the pause, so choose at most half of pause.budget, which is {:?}", plan.pause.budget);
                return Err(self.fault(text.span(), "`settle` is too long", Some(hint)));
            }
        }
        Ok(())
    }
}
