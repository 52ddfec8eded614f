//! The columns in which `kubectl get` shows a kind, and how their cells are printed.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::{jsonpath::JsonPath, time::timestamp};

/// How a cell is read out of an object.
#[derive(Debug, Clone)]
enum Cell {
    Path(JsonPath),
    Computed(fn(&Value) -> Value),
}

/// One column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    kind: String,
    format: String,
    description: String,
    /// 0 is always shown, more only in wide output.
    priority: i64,
    cell: Cell,
}

impl Column {
    pub(crate) fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format, "description": self.description, "priority": self.priority})
    }

    /// The same column, shown in wide output only.
    pub(crate) fn wide(self) -> Self {
        Self {
            priority: 1,
            ..self
        }
    }

    pub(crate) fn cell(&self, object: &Value) -> Value {
        match &self.cell {
            Cell::Computed(compute) => compute(object),
            Cell::Path(path) => printed(&self.kind, &path.find(object)),
        }
    }
}

fn printed(kind: &str, found: &[&Value]) -> Value {
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match kind {
        "date" => first.as_str().map_or(Value::Null, |t| age(t).into()),
        "integer" | "number" | "boolean" => (*first).clone(),
        _ if first.is_null() => Value::Null,
        _ => {
            let words: Vec<String> = found
                .iter()
                .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
                .collect();
            words.join(" ").into()
        }
    }
}

/// How long ago a time was, as kubectl words it.
pub(crate) fn age(time: &str) -> String {
    let Ok(then) = time.parse::<Timestamp>() else {
        return "<invalid>".into();
    };
    human_duration(timestamp().as_second() - then.as_second())
}

/// Two units at most, fewer as it grows: `90s`, `5m10s`, `3h`, `2d4h`, `400d`.
fn human_duration(seconds: i64) -> String {
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => pair(minutes, "m", s % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

pub(crate) fn computed(name: &str, priority: i64, cell: fn(&Value) -> Value) -> Column {
    let description = String::new();
    Column {
        name: name.into(),
        kind: "string".into(),
        format: String::new(),
        description,
        priority,
        cell: Cell::Computed(cell),
    }
}

pub(crate) fn path(name: &str, kind: &str, path: &str) -> Column {
    let column = computed(name, 0, |_| Value::Null);
    match JsonPath::parse(path) {
        Some(path) => Column {
            kind: kind.into(),
            cell: Cell::Path(path),
            ..column
        },
        None => column,
    }
}

pub(crate) fn name() -> Column {
    let description = "Name must be unique within a namespace.".into();
    Column {
        format: "name".into(),
        description,
        ..path("Name", "string", ".metadata.name")
    }
}

pub(crate) fn created() -> Column {
    Column {
        description: "When the object was created.".into(),
        ..path("Age", "date", ".metadata.creationTimestamp")
    }
}

/// The columns of a custom kind: its name, then what its definition asks for.
pub(crate) fn custom(asked: &Value) -> Vec<Column> {
    let mut columns = vec![name()];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    for column in asked.as_array().into_iter().flatten() {
        columns.push(Column {
            format: text(&column["format"]),
            description: text(&column["description"]),
            priority: column["priority"].as_i64().unwrap_or(0),
            ..path(
                &text(&column["name"]),
                &text(&column["type"]),
                &text(&column["jsonPath"]),
            )
        });
    }
    if columns.len() == 1 {
        columns.push(created());
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn durations_are_worded_like_kubectl() {
        for (seconds, words) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (310, "5m10s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (30_000, "8h"),
            (172_800, "2d"),
            (187_200, "2d4h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(human_duration(seconds), words, "{seconds}");
        }
    }
}
