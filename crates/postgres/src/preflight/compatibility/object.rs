//! What a difference is about: a name in a schema, perhaps with a column.

use std::fmt;

use crate::names::ident;

/// A relation, function or type, or a column of a relation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Object {
    pub(super) schema: String,
    pub(super) name: String,
    /// Of a relation only.
    pub(super) column: Option<String>,
}

impl Object {
    pub(super) fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into(), column: None }
    }

    pub(super) fn column(schema: impl Into<String>, name: impl Into<String>, column: impl Into<String>) -> Self {
        Self { column: Some(column.into()), ..Self::new(schema, name) }
    }

    /// Without the column.
    pub(super) fn whole(&self) -> Self {
        Self::new(&self.schema, &self.name)
    }

    /// A column of it.
    pub(super) fn with(&self, column: &str) -> Self {
        Self::column(&self.schema, &self.name, column)
    }

    /// Quoted, for SQL; without the column.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.name))
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)?;
        self.column.as_ref().map_or(Ok(()), |column| write!(f, ".{column}"))
    }
}
