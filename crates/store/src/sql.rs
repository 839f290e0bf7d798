//! One way to say SQL to two databases.
//!
//! A statement is one text with `$1` parameters. Where it takes a batch, `rows` stands for the elements of a JSON array given
//! as `$1`: `r.value ->> 0` is the first column of a row, `r.value ->> 1` the second. One statement per kind and batch is what
//! makes sqlx fast enough (docs/decisions/0001).

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{PgConnection, Postgres, Row as _, SqlSafeStr, Sqlite, SqliteConnection};

use crate::writer::SqliteTx;

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
    SqliteTx(&'c mut SqliteTx),
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
            Self::Sqlite(connection) => sqlite(sql.sqlite, values).execute(&mut **connection).await?.rows_affected(),
            Self::SqliteTx(tx) => tx.execute(sql, values).await?,
            Self::Postgres(connection) => postgres(sql, values).execute(&mut **connection).await?.rows_affected(),
        })
    }

    /// Runs a statement that needs no answer, at the latest with the commit. Should it fail, so does what it went with.
    pub(crate) async fn later(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<()> {
        if let Self::SqliteTx(tx) = self {
            #[cfg(test)]
            crate::plans::note(sql);
            tx.later(sql, values);
            return Ok(());
        }
        self.execute(sql, values).await.map(drop)
    }

    /// All rows of a query.
    pub(crate) async fn rows(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<Vec<Row>> {
        #[cfg(test)]
        crate::plans::note(sql);
        match self {
            Self::Sqlite(connection) => {
                let rows = sqlite(sql.sqlite, values).fetch_all(&mut **connection).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::SqliteTx(tx) => tx.rows(sql, values).await,
            Self::Postgres(connection) => {
                let rows = postgres(sql, values).fetch_all(&mut **connection).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The first row of a query, if there is one.
    pub(crate) async fn row(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<Option<Row>> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// The rows of a query that folds them into one JSON array (null for none): a row of its own costs as much as a query.
    pub(crate) async fn folded<T: serde::de::DeserializeOwned>(
        &mut self,
        sql: Sql,
        values: &[Value<'_>],
    ) -> sqlx::Result<Vec<T>> {
        self.row(sql, values).await?.map_or_else(|| Ok(Vec::new()), |row| row.folded(0))
    }
}

impl Row {
    /// A column that holds rows folded into one JSON array, or null for none.
    pub(crate) fn folded<T: serde::de::DeserializeOwned>(&self, column: usize) -> sqlx::Result<Vec<T>> {
        let Some(json) = self.maybe_text(column)? else { return Ok(Vec::new()) };
        serde_json::from_str(&json).map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }

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

pub(crate) fn sqlite<'q>(sql: impl SqlSafeStr, values: &'q [Value<'q>]) -> Query<'q, Sqlite, SqliteArguments> {
    values.iter().fold(sqlx::query(sql), |query, value| match value {
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

/// One part of a statement, in one dialect. `write` puts the rows of a JSON array between two texts; `read` is a query over them
/// whose result is one JSON array of arrays.
macro_rules! part {
    (sqlite write $head:expr, $rows:expr, $tail:expr) => {
        concat!($head, "jsonb_each(", $rows, ") r", $tail)
    };
    (postgres write $head:expr, $rows:expr, $tail:expr) => {
        concat!($head, "jsonb_array_elements(", $rows, "::text::jsonb) r(value)", $tail)
    };
    (sqlite read $columns:expr, $rows:expr, $tail:expr) => {
        concat!("select json_group_array(json_array(", $columns, ")) from jsonb_each(", $rows, ") r", $tail)
    };
    (postgres read $columns:expr, $rows:expr, $tail:expr) => {
        concat!(
            "select json_agg(json_build_array(",
            $columns,
            "))::text from jsonb_array_elements(",
            $rows,
            "::text::jsonb) r(value)",
            $tail
        )
    };
}
pub(crate) use part;

/// `folded!("columns", " joins and where")`: a query over the rows of `$1` whose result is one JSON array of arrays. Joins are
/// left joins filtered by expressions, which keeps both databases at reading the rows first and looking the rest up by index.
macro_rules! folded {
    ($columns:expr, $tail:expr) => {
        $crate::sql::Sql {
            sqlite: $crate::sql::part!(sqlite read $columns, "$1", $tail),
            postgres: $crate::sql::part!(postgres read $columns, "$1", $tail),
        }
    };
}
pub(crate) use folded;

/// `columns!(read(…), read(…))`: several such queries as the columns of one row.
macro_rules! columns {
    (read($first:expr, $rows:literal, $tail:expr) $(, read($columns:expr, $other_rows:literal, $other_tail:expr))* $(,)?) => {
        $crate::sql::Sql {
            sqlite: concat!(
                "select (",
                $crate::sql::part!(sqlite read $first, $rows, $tail),
                $("), (", $crate::sql::part!(sqlite read $columns, $other_rows, $other_tail),)*
                ")"
            ),
            postgres: concat!(
                "select (",
                $crate::sql::part!(postgres read $first, $rows, $tail),
                $("), (", $crate::sql::part!(postgres read $columns, $other_rows, $other_tail),)*
                ")"
            ),
        }
    };
}
pub(crate) use columns;

/// `together!(name: write(…); name: write(…); read(…))`: several parts in one trip, each `write` or `read` of a text, a parameter
/// and a text. SQLite runs them one after the other. PostgreSQL runs one statement, in which no part sees what another one
/// writes, and each row may be changed once.
macro_rules! together {
    ($name:ident: $kind:ident($head:expr, $rows:literal, $tail:expr); $($rest:tt)+) => {
        $crate::sql::Sql {
            sqlite: concat!($crate::sql::part!(sqlite $kind $head, $rows, $tail), $crate::sql::together!(@sqlite $($rest)+)),
            postgres: concat!(
                "with ",
                stringify!($name),
                " as (",
                $crate::sql::part!(postgres $kind $head, $rows, $tail),
                ")",
                $crate::sql::together!(@postgres $($rest)+)
            ),
        }
    };
    ($kind:ident($head:expr, $rows:literal, $tail:expr)) => {
        $crate::sql::Sql {
            sqlite: $crate::sql::part!(sqlite $kind $head, $rows, $tail),
            postgres: $crate::sql::part!(postgres $kind $head, $rows, $tail),
        }
    };
    (@sqlite $name:ident: $kind:ident($head:expr, $rows:literal, $tail:expr); $($rest:tt)+) => {
        concat!("; ", $crate::sql::part!(sqlite $kind $head, $rows, $tail), $crate::sql::together!(@sqlite $($rest)+))
    };
    (@sqlite $kind:ident($head:expr, $rows:literal, $tail:expr)) => {
        concat!("; ", $crate::sql::part!(sqlite $kind $head, $rows, $tail))
    };
    (@postgres $name:ident: $kind:ident($head:expr, $rows:literal, $tail:expr); $($rest:tt)+) => {
        concat!(
            ", ",
            stringify!($name),
            " as (",
            $crate::sql::part!(postgres $kind $head, $rows, $tail),
            ")",
            $crate::sql::together!(@postgres $($rest)+)
        )
    };
    (@postgres $kind:ident($head:expr, $rows:literal, $tail:expr)) => {
        concat!(" ", $crate::sql::part!(postgres $kind $head, $rows, $tail))
    };
}
pub(crate) use together;
