// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The part of Markdown that the sources of manual pages, and the help, are written in.

/// A part of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// `# HEADING`: a section.
    Heading(String),
    /// `## Heading`: a part of a section.
    Subheading(String),
    /// A paragraph, on one line.
    Paragraph(String),
    /// `- TERM: text`: what a term means.
    Item(String, String),
    /// Lines that are indented by four: taken as they are.
    Code(String),
}

#[cfg(test)]
impl Block {
    pub fn as_heading(&self) -> Option<&str> {
        match self {
            Block::Heading(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_code(&self) -> Option<&str> {
        match self {
            Block::Code(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Block::Paragraph(text) | Block::Item(_, text) => Some(text),
            _ => None,
        }
    }
}

/// Takes a text apart. Comments (`<!-- -->`, a line each) are left out.
pub fn parse(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut after_blank = true;
    for line in text.lines() {
        let is_first = std::mem::replace(&mut after_blank, line.trim().is_empty());
        if line.trim().is_empty() || line.starts_with("<!--") {
            if let Some(Block::Code(code)) = blocks.last_mut() {
                code.push('\n');
            }
            continue;
        }
        let new = if let Some(heading) = line.strip_prefix("## ") {
            Block::Subheading(heading.into())
        } else if let Some(heading) = line.strip_prefix("# ") {
            Block::Heading(heading.into())
        } else if let Some(code) = line.strip_prefix("    ") {
            match blocks.last_mut() {
                Some(Block::Code(block)) => {
                    block.push_str(code);
                    block.push('\n');
                    continue;
                }
                _ => Block::Code(format!("{code}\n")),
            }
        } else if let Some((term, text)) = item(line) {
            Block::Item(term.into(), text.into())
        } else {
            match blocks.last_mut() {
                Some(Block::Paragraph(block) | Block::Item(_, block)) if !is_first => {
                    block.push(' ');
                    block.push_str(line.trim());
                    continue;
                }
                _ => Block::Paragraph(line.trim().into()),
            }
        };
        blocks.push(new);
    }
    for block in &mut blocks {
        if let Block::Code(code) = block {
            code.truncate(code.trim_end().len());
        }
    }
    blocks
}

fn item(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("- ")?.split_once(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart() {
        let text = "<!-- a licence -->\n# ONE\nfirst\nsecond\n\nthird:\n\n    code\n\n      more\n\nend\n\n\
                    ## Two\n- `X`: what\n  it is\n- `Y`: another\n";
        let expected = [
            Block::Heading("ONE".into()),
            Block::Paragraph("first second".into()),
            Block::Paragraph("third:".into()),
            Block::Code("code\n\n  more".into()),
            Block::Paragraph("end".into()),
            Block::Subheading("Two".into()),
            Block::Item("`X`".into(), "what it is".into()),
            Block::Item("`Y`".into(), "another".into()),
        ];
        assert_eq!(parse(text), expected);
    }
}
