//! The variables of the environment that set a client up.

use std::env::{self, VarError};

use crate::{Error, settings::Settings};

pub(crate) fn settings() -> Result<Settings, Error> {
    Settings::read(|variable| match env::var(variable) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Error::Environment { variable }),
    })
}
