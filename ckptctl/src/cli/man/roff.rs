// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writing for man(7): lines of it, and text with the fonts that manual pages use.

use std::collections::BTreeSet;

use super::markup::Block;

/// Columns of a line of the source.
const LINE: usize = 78;

/// In text: the dash of roff, which stays what it is in the name of a page.
pub const DASH: &str = "\u{2212}";

/// A page in the making.
pub struct Roff {
    source: String,
    /// Words that stand for something that the user puts in their place: they are slanted.
    placeholders: BTreeSet<String>,
}

impl Roff {
    /// An empty page; its title, section of the manual and version.
    pub fn new(title: &str, section: u8, version: &str, placeholders: BTreeSet<String>) -> Roff {
        let title = title.to_uppercase();
        let source = format!(
            ".\\\" SPDX-License-Identifier: Apache-2.0 OR MIT\n\
             .TH {title} {section} \"\" \"ckpt {version}\" \"ckpt manual\"\n\
             .ad l\n.nr HY 0\n"
        );
        Roff {
            source,
            placeholders,
        }
    }

    /// The page.
    pub fn finish(self) -> String {
        self.source
    }

    /// A line as it is.
    pub fn line(&mut self, line: &str) {
        self.source.push_str(line);
        self.source.push('\n');
    }

    /// A section.
    pub fn section(&mut self, heading: &str) {
        self.line(&format!(".SH {}", quoted(heading)));
    }

    /// Text, each sentence on a line of its own.
    pub fn text(&mut self, text: &str) {
        let mut line = String::new();
        for word in self.styled(text).split_whitespace() {
            if !line.is_empty() && line.len() + 1 + word.len() > LINE {
                self.text_line(&line);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
            let plain = word.trim_end_matches("\\fR").trim_end_matches(')');
            if plain.len() > 1 && plain.ends_with(['.', '?', '!']) {
                self.text_line(&line);
                line.clear();
            }
        }
        self.text_line(&line);
    }

    fn text_line(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        // It would be a request.
        if line.starts_with(['.', '\'']) {
            self.source.push_str("\\&");
        }
        self.line(line);
    }

    /// What a term means; the text may be empty.
    pub fn item(&mut self, term: &str, text: &str) {
        self.line(".TP");
        let term = self.styled(term);
        self.text_line(&term);
        self.text(text);
    }

    /// Lines as they are, indented.
    pub fn code(&mut self, code: &str) {
        self.line(".RS 4");
        self.line(".EX");
        for line in code.lines() {
            let line = escaped(line, true);
            match line.is_empty() {
                // An empty line of a source is not for all who read it.
                true => self.line("\\&"),
                false => self.text_line(&line),
            }
        }
        self.line(".EE");
        self.line(".RE");
    }

    /// Parts of a page.
    pub fn blocks(&mut self, blocks: &[Block]) {
        let mut after_heading = true;
        for block in blocks {
            match block {
                Block::Heading(heading) => self.section(heading),
                Block::Subheading(heading) => self.line(&format!(".SS {}", quoted(heading))),
                Block::Paragraph(_) | Block::Code(_) if !after_heading => self.line(".PP"),
                _ => {}
            }
            match block {
                Block::Heading(_) | Block::Subheading(_) => {}
                Block::Paragraph(text) => self.text(text),
                Block::Item(term, text) => self.item(term, &upper_first(text)),
                Block::Code(code) => self.code(code),
            }
            after_heading = matches!(block, Block::Heading(_) | Block::Subheading(_));
        }
    }

    /// Text with fonts: what is between backticks is bold, and so are options; placeholders and
    /// `*words*` are slanted.
    pub fn styled(&self, text: &str) -> String {
        let mut styled = String::new();
        for (number, part) in text.split('`').enumerate() {
            if number % 2 == 1 {
                let code = self.with_placeholders(&escaped(part, true), "\\fB");
                styled += &format!("\\fB{code}\\fR");
                continue;
            }
            for word in part.split_inclusive(' ') {
                styled += &self.styled_word(word);
            }
        }
        styled
    }

    fn styled_word(&self, word: &str) -> String {
        let core = word.trim_matches(|c: char| " ,.;:()".contains(c));
        let styled = if let Some(slanted) = core
            .strip_prefix('*')
            .and_then(|core| core.strip_suffix('*'))
        {
            format!("\\fI{}\\fR", escaped(slanted, false))
        } else if is_option(core) {
            let option = self.with_placeholders(&escaped(core, true), "\\fB");
            format!("\\fB{option}\\fR")
        } else {
            self.with_placeholders(&escaped(core, false), "\\fR")
        };
        let at = word.find(core).unwrap_or(0);
        let (before, after) = (&word[..at], &word[at + core.len()..]);
        format!("{before}{styled}{after}")
    }

    /// Slants the placeholders in escaped text whose font is another one.
    fn with_placeholders(&self, text: &str, font: &str) -> String {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut styled = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(is_word) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            styled += before;
            match self.placeholders.contains(word) && !before.ends_with('\\') {
                true => styled += &format!("\\fI{word}{font}"),
                false => styled += word,
            }
            rest = after;
        }
        styled + rest
    }
}

/// What a term means reads as a sentence.
fn upper_first(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// An option, and not a dash in a sentence.
fn is_option(word: &str) -> bool {
    let name = word.strip_prefix("--").or(word.strip_prefix('-'));
    name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// The argument of a macro.
fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text, false).replace('"', "\\(dq"))
}

/// Text without any meaning to roff. What a terminal takes literally keeps its characters, which are
/// made prettier elsewhere.
pub fn escaped(text: &str, literal: bool) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\\' => escaped += "\\e",
            '\u{2212}' => escaped += "\\-",
            '-' if literal => escaped += "\\-",
            '\'' if literal => escaped += "\\(aq",
            '`' => escaped += "\\(ga",
            '^' => escaped += "\\(ha",
            '~' => escaped += "\\(ti",
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(placeholders: &[&str]) -> Roff {
        Roff {
            source: String::new(),
            placeholders: placeholders.iter().map(|&word| word.into()).collect(),
        }
    }

    #[test]
    fn options_commands_and_placeholders_have_their_fonts() {
        let page = page(&["DIR", "EPOCH"]);
        assert_eq!(
            page.styled("With --to, `ckptctl log DIR@EPOCH` (DIR) and *not* CKPT_DIR - well-known."),
            "With \\fB\\-\\-to\\fR, \\fBckptctl log \\fIDIR\\fB@\\fIEPOCH\\fB\\fR (\\fIDIR\\fR) and \
             \\fInot\\fR CKPT_DIR - well-known."
        );
    }

    #[test]
    fn a_sentence_begins_a_line_and_no_line_is_a_request() {
        let mut page = page(&[]);
        page.text("One. Two (three.) .four's `x.y` a\\b");
        assert_eq!(page.source, "One.\nTwo (three.)\n\\&.four's \\fBx.y\\fR a\\eb\n");
    }

    #[test]
    fn code_is_what_it_was() {
        let mut page = page(&["DIR"]);
        page.code(".a -b 'c'\n\nDIR \\");
        assert_eq!(
            page.source,
            ".RS 4\n.EX\n\\&.a \\-b \\(aqc\\(aq\n\\&\nDIR \\e\n.EE\n.RE\n"
        );
    }
}
