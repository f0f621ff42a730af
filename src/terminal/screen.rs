//! A whole screen that is drawn again and again, and the terminal given back as it was.

use std::io::{self, IsTerminal as _, Write as _};

use console::Term;

/// The terminal's second screen, left when dropped.
pub struct Screen {
    term: Term,
}

/// Whether stdout is a terminal on which a screen can be drawn.
pub fn can_draw() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && !dumb
}

impl Screen {
    /// Turns to the second screen.
    pub fn open() -> io::Result<Self> {
        let mut term = Term::buffered_stdout();
        term.write_all(b"\x1b[?1049h")?;
        term.hide_cursor()?;
        term.flush()?;
        Ok(Self { term })
    }

    /// Draws text over what is there. What does not fit below is counted instead.
    pub fn draw(&mut self, text: &str) -> io::Result<()> {
        let (rows, columns) = self.term.size();
        self.term.write_all(frame(text, rows, columns).as_bytes())?;
        self.term.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.term.show_cursor();
        let _ = self.term.write_all(b"\x1b[?1049l");
        let _ = self.term.flush();
    }
}

/// The bytes that draw text on a screen of this size without clearing it first, so that nothing flickers.
fn frame(text: &str, rows: u16, columns: u16) -> String {
    let (rows, columns) = (usize::from(rows).max(2), usize::from(columns).max(1));
    let lines: Vec<&str> = text.lines().collect();
    let fits = lines.len() <= rows;
    let shown = if fits { lines.len() } else { rows - 1 };
    let mut frame = String::from("\x1b[H");
    for (number, line) in lines[..shown].iter().enumerate() {
        if number > 0 {
            frame.push_str("\r\n");
        }
        frame.push_str(&console::truncate_str(line, columns, "…"));
        frame.push_str("\x1b[K");
    }
    if !fits {
        let more = format!("… and {} lines more", lines.len() - shown);
        frame.push_str("\r\n");
        frame.push_str(&console::truncate_str(&more, columns, "…"));
        frame.push_str("\x1b[K");
    }
    frame.push_str("\x1b[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::frame;

    #[test]
    fn a_frame_fits_its_screen() {
        assert_eq!(
            frame("one\ntwo", 3, 10),
            "\x1b[Hone\x1b[K\r\ntwo\x1b[K\x1b[J"
        );
        assert_eq!(
            frame("one\ntwo\nthree\nfour", 3, 4),
            "\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\n… a…\x1b[K\x1b[J"
        );
    }
}
