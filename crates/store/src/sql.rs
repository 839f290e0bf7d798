//! One way to say SQL to two databases.
//!
//! A statement is one text with `$1` parameters. Where it takes a batch, `rows` stands for the elements of a JSON array given
//! as `$1`: `r.value ->> 0` is the first column of a row, `r.value ->> 1` the second. One statement per kind and batch is what
//! makes sqlx fast enough (docs/decisions/0001).

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{PgConnection, Postgres, Row as _, Sqlite, SqliteConnection};

/// The same statement in both dialects. Both texts are constants: nothing from outside is ever part of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sql {
    pub(crate) sqlite: &'static str,
    pub(crate) postgres: &'static str,
}

/// `sql!("…")` for one text on both; `sql!("… from ", rows " where …")` reads the JSON array `$1`; `sql!(sqlite: "…",
/// postgres: "…")` where the dialects really differ.
macro_rules! sql {
    (sqlite: $sqlite:expr, postgres: $postgres:expr $(,)?) => {
        $crate::sql::Sql { sqlite: $sqlite, postgres: $postgres }
    };
    ($head:literal $(, rows $tail:literal)* $(,)?) => {
        $crate::sql::Sql {
            sqlite: concat!($head $(, "jsonb_each($1) r", $tail)*),
            postgres: concat!($head $(, "jsonb_array_elements($1::text::jsonb) r(value)", $tail)*),
        }
    };
}
pub(crate) use sql;

/// A value bound to a parameter.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Int(i64),
    Text(&'a str),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

/// One open connection of either database.
#[derive(Debug)]
pub(crate) enum Connection<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// One row of either database.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(sqlx::sqlite::SqliteRow),
    Postgres(sqlx::postgres::PgRow),
}

impl Connection<'_> {
    /// Runs a statement; how many rows it touched.
    pub(crate) async fn execute(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<u64> {
        #[cfg(test)]
        crate::plans::note(sql);
        Ok(match self {
            Self::Sqlite(connection) => sqlite(sql, values).execute(&mut **connection).await?.rows_affected(),
            Self::Postgres(connection) => postgres(sql, values).execute(&mut **connection).await?.rows_affected(),
        })
    }

    /// All rows of a query.
    pub(crate) async fn rows(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<Vec<Row>> {
        #[cfg(test)]
        crate::plans::note(sql);
        Ok(match self {
            Self::Sqlite(connection) => {
                sqlite(sql, values).fetch_all(&mut **connection).await?.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(connection) => {
                postgres(sql, values).fetch_all(&mut **connection).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// The first row of a query, if there is one.
    pub(crate) async fn row(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<Option<Row>> {
        #[cfg(test)]
        crate::plans::note(sql);
        Ok(match self {
            Self::Sqlite(connection) => sqlite(sql, values).fetch_optional(&mut **connection).await?.map(Row::Sqlite),
            Self::Postgres(connection) => {
                postgres(sql, values).fetch_optional(&mut **connection).await?.map(Row::Postgres)
            }
        })
    }

    /// The rows of a query that folds them into one JSON array (null for none): a row of its own costs as much as a query.
    pub(crate) async fn folded<T: serde::de::DeserializeOwned>(
        &mut self,
        sql: Sql,
        values: &[Value<'_>],
    ) -> sqlx::Result<Vec<T>> {
        let Some(row) = self.row(sql, values).await? else { return Ok(Vec::new()) };
        let Some(json) = row.maybe_text(0)? else { return Ok(Vec::new()) };
        serde_json::from_str(&json).map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }
}

impl Row {
    pub(crate) fn text(&self, column: usize) -> sqlx::Result<String> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(crate) fn maybe_text(&self, column: usize) -> sqlx::Result<Option<String>> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(crate) fn int(&self, column: usize) -> sqlx::Result<i64> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(crate) fn maybe_int(&self, column: usize) -> sqlx::Result<Option<i64>> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// A text column as a type of ours.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, column: usize) -> sqlx::Result<T>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        self.text(column)?.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }
}

fn sqlite<'q>(sql: Sql, values: &'q [Value<'q>]) -> Query<'q, Sqlite, SqliteArguments> {
    values.iter().fold(sqlx::query(sql.sqlite), |query, value| match value {
        Value::Int(value) => query.bind(*value),
        Value::Text(value) => query.bind(*value),
    })
}

fn postgres<'q>(sql: Sql, values: &'q [Value<'q>]) -> Query<'q, Postgres, PgArguments> {
    values.iter().fold(sqlx::query(sql.postgres), |query, value| match value {
        Value::Int(value) => query.bind(*value),
        Value::Text(value) => query.bind(*value),
    })
}

/// Rows as the JSON array that `rows` reads.
pub(crate) fn json(rows: &impl serde::Serialize) -> sqlx::Result<String> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// `folded!("columns", " joins and where")`: a query over the rows of `$1` whose result is one JSON array of arrays. Joins are
/// written `cross join x where …`, which keeps SQLite at reading the rows first and looking the rest up by index.
macro_rules! folded {
    ($columns:literal, $tail:literal) => {
        $crate::sql::Sql {
            sqlite: concat!("select json_group_array(json_array(", $columns, ")) from jsonb_each($1) r", $tail),
            postgres: concat!(
                "select json_agg(json_build_array(",
                $columns,
                "))::text from jsonb_array_elements($1::text::jsonb) r(value)",
                $tail
            ),
        }
    };
}
pub(crate) use folded;
