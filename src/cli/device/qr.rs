//! A QR code in a terminal: two modules a character, dark on light whatever the terminal's colours are.

use qrcodegen::QrCode;
use qrcodegen::QrCodeEcc;

/// The light margin, in modules (ISO/IEC 18004 §9.1 has four).
const MARGIN: i32 = 4;

/// A code of this text; none if it is too long for one.
pub(super) fn draw(text: &str) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let mut drawn = String::new();
    let end = code.size() + MARGIN;
    for y in (-MARGIN..end).step_by(2) {
        // Black on white, by number and not by name: themes have their own blacks.
        drawn.push_str("\x1b[38;5;16;48;5;231m");
        for x in -MARGIN..end {
            drawn.push(match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        drawn.push_str("\x1b[0m\n");
    }
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_square_with_its_corner_where_it_belongs() {
        let drawn = draw("lowband:AAAA").unwrap();
        let lines: Vec<Vec<char>> = drawn
            .lines()
            .map(|line| {
                line.trim_start_matches("\x1b[38;5;16;48;5;231m")
                    .trim_end_matches("\x1b[0m")
                    .chars()
                    .collect()
            })
            .collect();
        // Version 1 has 21 modules a side.
        assert!(lines.iter().all(|line| line.len() == 29));
        assert_eq!(lines.len(), 15);
        assert_eq!(lines[2][4..11].iter().collect::<String>(), "█▀▀▀▀▀█");
        assert_eq!(lines[0].iter().collect::<String>().trim(), "");
        assert_eq!(draw(&"a".repeat(3_000)), None);
    }
}
