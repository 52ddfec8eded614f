//! Byte quantities and shares, read as Kubernetes reads them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{borrow::Cow, fmt, str::FromStr};

/// A number of bytes, written as a Kubernetes quantity (`1.5Ti`, `500G`, `1048576`, `1e9`).
///
/// Fractions of a byte are rounded up, as Kubernetes does. Written back in the largest binary
/// unit that keeps it exact.
/// Source of the grammar: `k8s.io/apimachinery/pkg/api/resource`, type `Quantity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteQuantity(pub u64);

/// Part of a whole: a percentage (`60%`) or an absolute number of bytes (`1.5Ti`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// Whole percents, 0 to 100.
    Percent(u8),
    /// Bytes.
    Bytes(ByteQuantity),
}

/// Why a text is not a quantity or share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not follow the grammar.
    #[error("{0:?} is not a quantity of bytes; write it like 500G, 1.5Ti or 1048576")]
    Malformed(String),
    /// The value is negative.
    #[error("{0:?} is negative; a number of bytes cannot be")]
    Negative(String),
    /// The value does not fit 64 bits.
    #[error("{0:?} is more than 16Ei - 1")]
    TooLarge(String),
    /// A percentage outside 0% to 100%, or not a whole number.
    #[error("{0:?} is not a whole percentage from 0% to 100%")]
    BadPercent(String),
}

const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

/// A non-negative quantity as a regular expression, for the rules in the schemas.
const QUANTITY: &str =
    r"\\+?([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?";
/// A whole percentage as a regular expression.
const PERCENT: &str = "(100|[1-9]?[0-9])%";

/// A schema whose refusal is a sentence: a `pattern` would show people a regular expression.
fn schema(expression: &str, message: &str) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 32,
        "x-kubernetes-validations": [{
            "rule": format!("string(self).matches('^({expression})$')"),
            "message": message,
        }],
    })
}

impl FromStr for ByteQuantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let malformed = || QuantityError::Malformed(text.into());
        if text.starts_with('-') {
            return Err(QuantityError::Negative(text.into()));
        }
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        let split = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(split);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.')
            || whole.len() + fraction.len() == 0
            || whole.len() + fraction.len() > 38
        {
            return Err(malformed());
        }
        let digits: u128 = format!("{whole}{fraction}")
            .parse()
            .map_err(|_| malformed())?;
        let scale = Scale::parse(suffix).ok_or_else(malformed)?;
        let bytes = scale
            .apply(digits, fraction.len() as i32)
            .ok_or_else(|| QuantityError::TooLarge(text.into()))?;
        Ok(Self(bytes))
    }
}

/// What a suffix multiplies by.
enum Scale {
    PowerOfTwo(u32),
    PowerOfTen(i32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        if let Some((_, shift)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            return Some(Self::PowerOfTwo(*shift));
        }
        let exponent = match suffix {
            "n" => -9,
            "u" => -6,
            "m" => -3,
            "" => 0,
            "k" => 3,
            "M" => 6,
            "G" => 9,
            "T" => 12,
            "P" => 15,
            "E" => 18,
            _ => {
                let digits = suffix.strip_prefix(['e', 'E'])?;
                let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
                if unsigned.is_empty()
                    || unsigned.len() > 2
                    || !unsigned.bytes().all(|b| b.is_ascii_digit())
                {
                    return None;
                }
                digits.parse().ok()?
            }
        };
        Some(Self::PowerOfTen(exponent))
    }

    /// `digits` with `decimals` of them behind the point, scaled and rounded up; `None` if the
    /// result does not fit 64 bits.
    fn apply(&self, digits: u128, decimals: i32) -> Option<u64> {
        if digits == 0 {
            return Some(0);
        }
        let (factor, exponent) = match self {
            Self::PowerOfTwo(shift) => (1u128 << shift, -decimals),
            Self::PowerOfTen(exponent) => (1, exponent - decimals),
        };
        let product = digits.checked_mul(factor)?;
        let bytes = if exponent >= 0 {
            product.checked_mul(10u128.checked_pow(exponent.unsigned_abs())?)?
        } else {
            match 10u128.checked_pow(exponent.unsigned_abs()) {
                Some(divisor) => product.div_ceil(divisor),
                None => 1,
            }
        };
        u64::try_from(bytes).ok()
    }
}

impl fmt::Display for ByteQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = BINARY
            .iter()
            .rev()
            .find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match unit {
            Some((name, shift)) => write!(f, "{}{name}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl ByteQuantity {
    /// For people: three significant digits and a binary unit (`1.75Ti`). Not exact.
    pub fn rounded(self) -> String {
        let unit = BINARY.iter().rev().find(|(_, shift)| self.0 >> shift > 0);
        let Some((name, shift)) = unit else {
            return self.0.to_string();
        };
        let value = self.0 as f64 / (1u64 << shift) as f64;
        let decimals = if value >= 100.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            2
        };
        let text = format!("{value:.decimals$}");
        let text = if decimals > 0 {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        format!("{text}{name}")
    }
}

impl Share {
    /// The share of `total` bytes, rounded down; an absolute share is not capped.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Percent(percent) => (u128::from(total) * u128::from(percent) / 100) as u64,
            Self::Bytes(bytes) => bytes.0,
        }
    }
}

impl FromStr for Share {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let Some(number) = text.strip_suffix('%') else {
            return Ok(Self::Bytes(text.parse()?));
        };
        let canonical = number == "0"
            || (!number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit()));
        match number.parse::<u8>() {
            Ok(percent) if percent <= 100 && canonical => Ok(Self::Percent(percent)),
            _ => Err(QuantityError::BadPercent(text.into())),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// Kubernetes lets a quantity stand in YAML with or without quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum IntOrText {
    Int(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for ByteQuantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match IntOrText::deserialize(deserializer)? {
            IntOrText::Int(bytes) => Ok(Self(bytes)),
            IntOrText::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for ByteQuantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match IntOrText::deserialize(deserializer)? {
            IntOrText::Int(bytes) => Ok(Self::Bytes(ByteQuantity(bytes))),
            IntOrText::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteQuantity {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ByteQuantity".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema(QUANTITY, "write a size such as 500G, 1.5Ti or 1048576")
    }
}

impl JsonSchema for Share {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema(
            &format!("{PERCENT}|{QUANTITY}"),
            "write a percentage from 0% to 100%, or a size such as 500G or 1.5Ti",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<u64, QuantityError> {
        text.parse::<ByteQuantity>().map(|q| q.0)
    }

    #[test]
    fn reads_what_kubernetes_reads() {
        for (text, expected) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("500G", 500_000_000_000),
            ("1.5Ti", 3 << 39),
            ("1.Ti", 1 << 40),
            (".5Gi", 1 << 29),
            ("1e9", 1_000_000_000),
            ("1E9", 1_000_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("12e-1", 2),
            ("1500m", 2),
            ("1n", 1),
            ("+2k", 2000),
            ("15.99999Ei", 18_446_732_544_494_505_548),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_kubernetes_refuses() {
        for text in [
            "", "G", "1.2.3", "1 Gi", "1gi", "1KB", "0x10", "1e", "1e+", "1e999", "Gi1", "1Gi ",
            "²",
        ] {
            assert!(
                matches!(bytes(text), Err(QuantityError::Malformed(_))),
                "{text}"
            );
        }
        assert!(matches!(bytes("-1Gi"), Err(QuantityError::Negative(_))));
        assert!(matches!(bytes("16Ei"), Err(QuantityError::TooLarge(_))));
        assert!(matches!(bytes("9e99"), Err(QuantityError::TooLarge(_))));
    }

    #[test]
    fn percentages_are_whole_and_at_most_100() {
        assert_eq!("60%".parse(), Ok(Share::Percent(60)));
        assert_eq!("0%".parse(), Ok(Share::Percent(0)));
        for text in ["101%", "-1%", "1.5%", "%", "060%", "+6%"] {
            assert!(
                matches!(text.parse::<Share>(), Err(QuantityError::BadPercent(_))),
                "{text}"
            );
        }
        assert_eq!(
            Share::Percent(60).of(u64::MAX),
            (u128::from(u64::MAX) * 60 / 100) as u64
        );
    }

    #[test]
    fn is_written_exactly_and_rounded_for_people() {
        for (value, exact, rounded) in [
            (0, "0", "0"),
            (1000, "1000", "1000"),
            (3 << 39, "1536Gi", "1.5Ti"),
            (1_920_383_410_176, "1875374424Ki", "1.75Ti"),
            (1 << 30, "1Gi", "1Gi"),
        ] {
            assert_eq!(ByteQuantity(value).to_string(), exact);
            assert_eq!(ByteQuantity(value).rounded(), rounded);
            assert_eq!(exact.parse(), Ok(ByteQuantity(value)));
        }
    }
}
