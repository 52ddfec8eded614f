//! Forms of an answer: a table for people, JSON and YAML for programs.

pub use crate::drives::Output;
use anyhow::Result;
use serde::Serialize;

/// An answer in the form that is asked for. `table` is told whether it shall be wide; `facts` are reckoned only for programs.
///
/// # Errors
/// The facts cannot be had, or cannot be written in that form.
pub fn formed<T: Serialize>(
    output: Option<Output>,
    facts: impl FnOnce() -> Result<T>,
    table: impl FnOnce(bool) -> String,
) -> Result<String> {
    Ok(match output {
        None => table(false),
        Some(Output::Wide) => table(true),
        Some(Output::Json) => serde_json::to_string_pretty(&facts()?)? + "\n",
        Some(Output::Yaml) => serde_yaml::to_string(&facts()?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_has_the_form_that_is_asked_for() {
        let said = |output| {
            let table = |wide| format!("wide: {wide}\n");
            formed(output, || Ok(json!({"a": [1]})), table).unwrap()
        };
        assert_eq!(said(None), "wide: false\n");
        assert_eq!(said(Some(Output::Wide)), "wide: true\n");
        assert_eq!(said(Some(Output::Json)), "{\n  \"a\": [\n    1\n  ]\n}\n");
        assert_eq!(said(Some(Output::Yaml)), "a:\n- 1\n");
    }
}
