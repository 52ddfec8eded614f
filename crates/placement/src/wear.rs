//! When a drive's rated endurance will be used up.

use k8s_openapi::jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use crate::verdict::Smart;

/// A projection is told again once it is off by this part of the time that is left: a percent is coarse, and the first ones
/// of a drive's life say little.
const TOLERANCE: i64 = 8;
/// Projections end here: nobody plans further.
const FARTHEST_YEARS: i64 = 100;
const HOURS_A_YEAR: i64 = 8766;

/// The month (`2031-04`, UTC) in which the drive has used its rated endurance up if it goes on wearing as it has since it was
/// first powered on; none where it has worn by no percent yet. `told` is what was said before, which stays while it is about right.
pub fn wears_out(smart: &Smart, now: Timestamp, told: Option<&str>) -> Option<String> {
    let used = i64::from(smart.used_percent);
    if used == 0 {
        return None;
    }
    let age = i64::try_from(smart.power_on_hours).unwrap_or(i64::MAX);
    let left = age
        .saturating_mul((100 - used).max(0))
        .checked_div(used)?
        .min(FARTHEST_YEARS * HOURS_A_YEAR);
    let at = now.checked_add(SignedDuration::from_hours(left)).ok()?;
    if let Some(told) = told
        && let Some(before) = month(told)
    {
        let off = at.duration_since(before).as_hours().abs();
        // A month is told as its first day.
        if off <= (left / TOLERANCE).max(31 * 24) {
            return Some(told.to_owned());
        }
    }
    Some(at.to_zoned(TimeZone::UTC).strftime("%Y-%m").to_string())
}

fn month(text: &str) -> Option<Timestamp> {
    let (year, month) = text.split_once('-')?;
    let day = civil::Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()?;
    Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smart(used_percent: u8, power_on_hours: u128) -> Smart {
        Smart {
            used_percent,
            power_on_hours,
            ..Smart::default()
        }
    }

    #[test]
    fn a_drive_wears_on_as_it_has() {
        let now: Timestamp = "2026-11-21T00:00:00Z".parse().expect("a time");
        let year = 8766_u128;
        assert_eq!(wears_out(&smart(0, 5 * year), now, None), None);
        assert_eq!(
            wears_out(&smart(20, 8766), now, None).as_deref(),
            Some("2030-11")
        );
        assert_eq!(
            wears_out(&smart(100, 900), now, None).as_deref(),
            Some("2026-11")
        );
        assert_eq!(
            wears_out(&smart(150, 900), now, None).as_deref(),
            Some("2026-11")
        );
        assert_eq!(
            wears_out(&smart(1, 60 * year), now, None).as_deref(),
            Some("2126-11")
        );
    }

    #[test]
    fn what_was_told_stays_while_it_is_about_right() {
        let now: Timestamp = "2026-11-21T00:00:00Z".parse().expect("a time");
        let told = |told| wears_out(&smart(20, 8766), now, Some(told));
        assert_eq!(told("2030-07").as_deref(), Some("2030-07"));
        assert_eq!(told("2029-11").as_deref(), Some("2030-11"));
        assert_eq!(told("soon").as_deref(), Some("2030-11"));
    }
}
