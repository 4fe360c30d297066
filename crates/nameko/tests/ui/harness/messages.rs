//! Normalization of compiler output.

/// Removes line numbers of the library's sources, counts of types, and the closing lines.
pub(crate) fn lasting(output: &str) -> String {
    let output = output.replace("crates/nameko/", "");
    let messages = output.split("\n\n").map(str::trim_end).filter(|message| {
        let ends = [
            "error: aborting due to ",
            "For more information about ",
            "Some errors have detailed ",
        ];
        !message.is_empty() && !ends.iter().any(|end| message.starts_with(end))
    });
    let mut lasting: String = messages.map(message).collect::<Vec<_>>().join("\n\n");
    lasting.push('\n');
    lasting
}

fn message(text: &str) -> String {
    let mut lines = Vec::new();
    // Whether the quoted lines belong to the library.
    let mut elsewhere = false;
    for line in text.lines() {
        if let Some((margin, place)) = line.split_once("--> ") {
            elsewhere = place.starts_with("src/");
            let file = place.split(':').next().unwrap_or_default();
            lines.push(match elsewhere {
                true => format!("{margin}--> {file}"),
                false => line.to_owned(),
            });
        } else if let Some((number, code)) = numbered(line).filter(|_| elsewhere) {
            lines.push(format!("{}{code}", " ".repeat(number.len())));
        } else if let Some(before) = others(line) {
            lines.push(format!("{before}and $N others"));
        } else {
            lines.push(line.to_owned());
        }
    }
    narrow(&lines).join("\n")
}

/// Narrows the margin, which is as wide as the longest line number, to ignore the library's lines.
fn narrow(lines: &[String]) -> Vec<String> {
    let margin = |it: &String| it.find("--> ");
    let Some(is) = lines.iter().find_map(margin) else {
        return lines.to_vec();
    };
    let digits = lines.iter().filter_map(|line| numbered(line));
    let needs = digits.map(|parts| parts.0.trim().len()).max().unwrap_or(1);
    let excess = is.saturating_sub(needs);
    let narrowed = |line: &String| match numbered(line) {
        Some((number, code)) => {
            let number = number.trim();
            format!("{number:>needs$}{code}")
        }
        None => match line.split_at_checked(excess) {
            Some((cut, rest)) if cut.trim().is_empty() => rest.to_owned(),
            _ => line.clone(),
        },
    };
    lines.iter().map(narrowed).collect()
}

/// Splits a quoted line into its number with trailing space, and the rest from ` |` on.
fn numbered(line: &str) -> Option<(&str, &str)> {
    let bar = line.find(" |")?;
    let (number, code) = line.split_at(bar);
    let number_itself = number.trim();
    let is_number =
        !number_itself.is_empty() && number_itself.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then_some((number, code))
}

fn others(line: &str) -> Option<&str> {
    let (before, count) = line.strip_suffix(" others")?.split_once("and ")?;
    (before.trim().is_empty() && count.bytes().all(|digit| digit.is_ascii_digit()))
        .then_some(before)
}
