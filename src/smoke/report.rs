//! What a run did, as one HTML page that needs nothing else: no scripts, no fonts, no pictures from elsewhere.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::timeline::{End, Placed, Span};
use crate::customer::hex;
use crate::diagnosis::Remedy;
use crate::secret::{ExposeSecret as _, SecretString, mask};
use crate::text;

const CSS: &str = include_str!("report.css");

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything held.
    Passed,
    /// Something did not.
    Failed,
    /// The operator stopped it.
    Interrupted,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What went wrong, where something did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The step in which it did.
    pub step: Option<String>,
    /// The name of a recognised cause.
    pub cause: Option<String>,
    /// In words.
    pub what: String,
    /// The lines that show it.
    pub evidence: Vec<String>,
    /// What to do.
    pub remedy: Vec<Remedy>,
}

/// Everything the page shows.
#[derive(Debug, Clone)]
pub struct Page {
    /// How the run ended.
    pub verdict: Verdict,
    /// Whose run it was.
    pub customer: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// What went wrong.
    pub finding: Option<Finding>,
    /// The steps that made and checked.
    pub made: Vec<Span>,
    /// The steps of the bootstrap.
    pub host: Vec<Span>,
    /// How its clock was laid over this machine's.
    pub placed: Placed,
    /// The steps that removed.
    pub removed: Vec<Span>,
    /// Kind, id, and what became of it.
    pub resources: Vec<(String, String, &'static str)>,
    /// What the operator should know besides.
    pub notes: Vec<String>,
    /// Versions and the like.
    pub facts: Vec<(String, String)>,
    /// Masked wherever they should turn up.
    pub secrets: Vec<SecretString>,
}

/// Sees to it that the file can be written, without changing what is in it.
pub fn prepare(file: &Path) -> io::Result<()> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .map(drop)
}

/// Writes the page.
pub fn write(file: &Path, page: &Page) -> io::Result<()> {
    std::fs::write(file, page.html())
}

/// The first half of a text's SHA-256, in hexadecimal: enough to tell versions apart.
pub fn digest(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))[..32].to_owned()
}

/// The scale of a timeline.
struct Scale {
    began: Timestamp,
    length: SignedDuration,
}

impl Scale {
    fn of(page: &Page) -> Self {
        let spans = || page.made.iter().chain(&page.host).chain(&page.removed);
        let began = spans().map(|s| s.began).min().unwrap_or(page.began);
        let ended = spans().map(|s| s.ended).max().unwrap_or(page.ended);
        Self {
            began,
            length: ended
                .duration_since(began)
                .max(SignedDuration::from_millis(1)),
        }
    }

    /// A moment, in per cent of the whole.
    fn place(&self, at: Timestamp) -> f64 {
        let part = at.duration_since(self.began).as_secs_f64() / self.length.as_secs_f64();
        (part * 100.0).clamp(0.0, 100.0)
    }

    /// Round seconds for the axis: at most eight of them.
    fn ticks(&self) -> Vec<u64> {
        let whole = self.length.as_secs_f64();
        let pause = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600]
            .into_iter()
            .find(|pause| whole / (*pause as f64) <= 8.0)
            .unwrap_or(7200);
        (0..)
            .map(|n| n * pause)
            // The last label would stand beyond the edge.
            .take_while(|second| (*second as f64) < whole * 0.95)
            .collect()
    }
}

impl Page {
    /// The page. Text is masked and escaped on its way in, so that no part of it can be forgotten.
    pub fn html(&self) -> String {
        let known: Vec<&str> = self.secrets.iter().map(|s| s.expose_secret()).collect();
        let t = |text: &str| escape(&mask(text, &known));
        let mut html = String::with_capacity(16 * 1024);
        let verdict = self.verdict.word();
        let customer = t(&self.customer);
        // Writing to a `String` cannot fail.
        let _ = write!(
            html,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>Smoke {verdict}: {customer}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n\
             <header>\n<p class=\"verdict {verdict}\">{}</p>\n<h1>Smoke run of {customer}</h1>\n\
             <p class=\"muted\">{} to {}, {}</p>\n</header>\n",
            verdict.to_uppercase(),
            moment(self.began),
            moment(self.ended),
            took(self.began, self.ended),
        );
        self.finding_html(&mut html, &t);
        self.timeline_html(&mut html, &t);
        if !self.resources.is_empty() || !self.notes.is_empty() {
            html.push_str("<section>\n<h2>What it made</h2>\n<table>\n");
            for (kind, id, fate) in &self.resources {
                let _ = writeln!(
                    html,
                    "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"fate\">{fate}</td></tr>",
                    t(kind),
                    t(id)
                );
            }
            html.push_str("</table>\n");
            for note in &self.notes {
                let _ = writeln!(html, "<p>Note: {}</p>", t(note));
            }
            html.push_str("</section>\n");
        }
        html.push_str("<section>\n<h2>Versions and surroundings</h2>\n<table>\n");
        for (name, value) in &self.facts {
            let _ = writeln!(
                html,
                "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                t(name),
                t(value)
            );
        }
        html.push_str("</table>\n</section>\n</main>\n</body>\n</html>\n");
        html
    }

    fn finding_html(&self, html: &mut String, t: &dyn Fn(&str) -> String) {
        let Some(finding) = &self.finding else { return };
        let at = finding
            .step
            .as_ref()
            .map_or(String::new(), |step| format!(" at {}", t(step)));
        let _ = write!(
            html,
            "<section class=\"finding\">\n<h2>What happened{at}</h2>\n<p>{}</p>\n",
            t(&finding.what)
        );
        if let Some(cause) = &finding.cause {
            let _ = writeln!(html, "<p class=\"muted\">Cause: {}</p>", t(cause));
        }
        if !finding.evidence.is_empty() {
            let lines: Vec<String> = finding.evidence.iter().map(|line| t(line)).collect();
            let _ = writeln!(html, "<pre>{}</pre>", lines.join("\n"));
        }
        if !finding.remedy.is_empty() {
            html.push_str("<h3>What to do</h3>\n");
            for remedy in &finding.remedy {
                let _ = match remedy {
                    Remedy::Do(text) => writeln!(html, "<p>{}</p>", t(text)),
                    Remedy::Run(command) => writeln!(html, "<pre>{}</pre>", t(command)),
                };
            }
        }
        html.push_str("</section>\n");
    }

    fn timeline_html(&self, html: &mut String, t: &dyn Fn(&str) -> String) {
        let scale = Scale::of(self);
        html.push_str("<section>\n<h2>Timeline</h2>\n<div class=\"axis\" aria-hidden=\"true\"><span></span><div class=\"ticks\">");
        for tick in scale.ticks() {
            let at = scale.began
                + SignedDuration::from_secs(i64::try_from(tick).unwrap_or(i64::MAX / 4));
            let _ = write!(
                html,
                "<span style=\"left:{:.3}%\">{}</span>",
                scale.place(at),
                text::duration(Duration::from_secs(tick)).replace("0 ms", "0 s")
            );
        }
        html.push_str("</div><span></span></div>\n");
        group(html, t, &scale, "From this machine", "made", &self.made);
        group(html, t, &scale, "On the host", "host", &self.host);
        let about_host = match self.placed {
            _ if self.host.is_empty() => "On the host: its console tells no times.",
            Placed::ByHeartbeat => "",
            Placed::ByFailure => {
                "The host's clock is not known: its failure is placed where it was noticed, some seconds late."
            }
            Placed::ByLaunch => {
                "The host's clock is not known: it is placed as if it booted at its launch, some seconds early."
            }
        };
        if !about_host.is_empty() {
            let _ = writeln!(html, "<p class=\"muted\">{about_host}</p>");
        }
        group(html, t, &scale, "Removal", "removal", &self.removed);
        html.push_str("</section>\n");
    }
}

fn group(
    html: &mut String,
    t: &dyn Fn(&str) -> String,
    scale: &Scale,
    heading: &str,
    class: &str,
    spans: &[Span],
) {
    if spans.is_empty() {
        return;
    }
    let _ = writeln!(html, "<h3>{heading}</h3>\n<ol class=\"steps {class}\">");
    for span in spans {
        let (left, right) = (scale.place(span.began), scale.place(span.ended));
        let end = match span.end {
            End::Done => "done",
            End::Unchanged => "unchanged",
            End::Failed => "failed",
            End::Open => "open",
        };
        let took = match span.end {
            End::Unchanged => "–".to_owned(),
            _ => took(span.began, span.ended),
        };
        let _ = write!(
            html,
            "<li><span class=\"name\">{}</span><span class=\"track\">",
            t(&span.name)
        );
        if span.end != End::Unchanged {
            // A bar of no length at the right edge would be cut off.
            let _ = write!(
                html,
                "<span class=\"bar {end}\" style=\"left:{:.3}%;width:{:.3}%\"></span>",
                left.min(99.5),
                right - left
            );
        }
        let _ = write!(html, "</span><span class=\"took\">{took}</span>");
        let detail = match span.end {
            End::Open => "not finished",
            _ => &span.detail,
        };
        if !detail.is_empty() {
            let _ = write!(html, "<span class=\"detail {end}\">{}</span>", t(detail));
        }
        html.push_str("</li>\n");
    }
    html.push_str("</ol>\n");
}

fn took(began: Timestamp, ended: Timestamp) -> String {
    let length = ended.duration_since(began);
    text::duration(Duration::try_from(length).unwrap_or_default())
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Text as HTML, in elements and in quoted attributes. Control characters, which HTML does not allow, are dropped.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
