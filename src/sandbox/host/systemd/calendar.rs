//! Calendar events of timers (`man systemd.time`), in UTC as on a fresh host: `daily`, `Mon..Fri *-*-* 08:00`, `*:0/5`.

use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, ToSpan, tz::TimeZone};

/// A set of allowed numbers of one field.
type Allowed = Vec<bool>;

/// A calendar event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host) struct Calendar {
    weekday: Allowed,
    year: Option<i16>,
    month: Allowed,
    day: Allowed,
    hour: Allowed,
    minute: Allowed,
    second: Allowed,
}

const DAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

impl Calendar {
    /// Reads an event; `None` for what systemd refuses, and for the rare forms (`~`, fractions, time zones but UTC) that a
    /// host of the sandbox does not know.
    pub fn parse(text: &str) -> Option<Calendar> {
        let text = match text.trim() {
            "minutely" => "*-*-* *:*:00",
            "hourly" => "*-*-* *:00:00",
            "daily" => "*-*-* 00:00:00",
            "weekly" => "Mon *-*-* 00:00:00",
            "monthly" => "*-*-01 00:00:00",
            "quarterly" => "*-01,04,07,10-01 00:00:00",
            "yearly" | "annually" => "*-01-01 00:00:00",
            other => other,
        };
        let mut words: Vec<_> = text.split_whitespace().collect();
        if words.last() == Some(&"UTC") {
            words.pop();
        }
        let mut calendar = Calendar {
            weekday: vec![true; 7],
            year: None,
            month: vec![true; 13],
            day: vec![true; 32],
            hour: single(24),
            minute: single(60),
            second: single(60),
        };
        if words.first()?.starts_with(|c: char| c.is_alphabetic()) {
            calendar.weekday = weekdays(words.remove(0))?;
        }
        if words.first().is_some_and(|word| !word.contains(':')) {
            calendar.date(words.remove(0))?;
        }
        if let Some(time) = words.pop() {
            calendar.time(time)?;
        }
        words.is_empty().then_some(calendar)
    }

    fn date(&mut self, text: &str) -> Option<()> {
        let mut fields = text.split('-').rev();
        self.day = field(fields.next()?, 1, 31)?;
        self.month = field(fields.next()?, 1, 12)?;
        self.year = match fields.next() {
            None | Some("*") => None,
            Some(year) => Some(year.parse().ok()?),
        };
        fields.next().is_none().then_some(())
    }

    fn time(&mut self, text: &str) -> Option<()> {
        let mut fields = text.split(':');
        self.hour = field(fields.next()?, 0, 23)?;
        self.minute = field(fields.next()?, 0, 59)?;
        self.second = field(fields.next().unwrap_or("0"), 0, 59)?;
        fields.next().is_none().then_some(())
    }

    /// The first time after `now` that the event names; `None` when there is none in the next years.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let start = now.to_zoned_datetime(TimeZone::UTC).datetime();
        let start = start
            .with()
            .subsec_nanosecond(0)
            .build()
            .ok()?
            .checked_add(1.second())
            .ok()?;
        let mut date = start.date();
        let mut time = start.time();
        // Eight years reach any date, a 29th of February too.
        for _ in 0..366 * 8 {
            if self.matches(date)
                && let Some(found) = self.time_from(time)
            {
                let found = DateTime::from_parts(date, found)
                    .to_zoned_datetime(TimeZone::UTC)
                    .ok()?;
                return Some(found.timestamp());
            }
            date = date.tomorrow().ok()?;
            time = Time::midnight();
        }
        None
    }

    fn matches(&self, date: Date) -> bool {
        let index = |number: i8| usize::try_from(number).unwrap_or(0);
        self.year.is_none_or(|year| year == date.year())
            && self.month[index(date.month())]
            && self.day[index(date.day())]
            && self.weekday[index(date.weekday().to_monday_zero_offset())]
    }

    /// The first allowed time of a day that is not before `earliest`.
    fn time_from(&self, earliest: Time) -> Option<Time> {
        let numbers = |allowed: &Allowed| {
            let set: Vec<i8> = (0i8..)
                .zip(allowed)
                .filter_map(|(number, yes)| yes.then_some(number))
                .collect();
            set
        };
        for hour in numbers(&self.hour)
            .into_iter()
            .filter(|hour| *hour >= earliest.hour())
        {
            for minute in numbers(&self.minute) {
                for second in numbers(&self.second) {
                    let time = Time::new(hour, minute, second, 0).ok()?;
                    if time >= earliest {
                        return Some(time);
                    }
                }
            }
        }
        None
    }
}

/// Only zero of `size` numbers.
fn single(size: usize) -> Allowed {
    let mut allowed = vec![false; size];
    allowed[0] = true;
    allowed
}

fn weekdays(text: &str) -> Option<Allowed> {
    let day = |name: &str| {
        let name = name.to_ascii_lowercase();
        DAYS.iter().position(|day| name == *day || name == day[..3])
    };
    let mut allowed = vec![false; 7];
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once("..").unwrap_or((part, part));
        allowed.get_mut(day(from)?..=day(to)?)?.fill(true);
    }
    Some(allowed)
}

/// `*`, `5`, `1,3`, `1..5`, `0/5`, `*/10`, and lists of these.
fn field(text: &str, lowest: usize, highest: usize) -> Option<Allowed> {
    let mut allowed = vec![false; highest + 1];
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse().ok().filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once("..") {
            Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
            None if range == "*" => (lowest, highest),
            None => {
                let from: usize = range.parse().ok()?;
                (from, if step.is_some() { highest } else { from })
            }
        };
        if from < lowest || to > highest || from > to {
            return None;
        }
        (from..=to)
            .step_by(step.unwrap_or(1))
            .for_each(|number| allowed[number] = true);
    }
    Some(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_time() {
        let now = "2026-11-23T10:02:30Z";
        for (text, next) in [
            ("minutely", "2026-11-23T10:03:00Z"),
            ("hourly", "2026-11-23T11:00:00Z"),
            ("daily", "2026-11-24T00:00:00Z"),
            ("weekly", "2026-11-30T00:00:00Z"),
            ("monthly", "2026-12-01T00:00:00Z"),
            ("*:0/5", "2026-11-23T10:05:00Z"),
            ("*:*:0/10", "2026-11-23T10:02:40Z"),
            ("Tue..Thu 08:15", "2026-11-24T08:15:00Z"),
            ("*-02-29 12:00:00", "2028-02-29T12:00:00Z"),
            ("2027-01-01", "2027-01-01T00:00:00Z"),
            ("10:02:30 UTC", "2026-11-24T10:02:30Z"),
        ] {
            let calendar = Calendar::parse(text).expect(text);
            assert_eq!(
                calendar.next(now.parse().unwrap()).unwrap().to_string(),
                next,
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_is_not_an_event() {
        for text in [
            "",
            "never",
            "25:00",
            "*:60",
            "Mon..Sunn..Tue",
            "1-2-3-4",
            "*:0/0",
            "12:00 13:00",
            "*-13-01",
        ] {
            assert_eq!(Calendar::parse(text), None, "{text}");
        }
        assert_eq!(
            Calendar::parse("2020-01-01")
                .unwrap()
                .next("2026-01-01T00:00:00Z".parse().unwrap()),
            None
        );
    }
}
