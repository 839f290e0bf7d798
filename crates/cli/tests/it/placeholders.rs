//! What differs from run to run, and what a page shows instead.

/// What is real and what is shown, both ways.
pub(crate) struct Placeholders {
    pairs: Vec<(String, String)>,
    messages: u32,
    hostname: String,
}

impl Placeholders {
    pub(crate) fn new(hostname: &str) -> Self {
        Self { pairs: Vec::new(), messages: 0, hostname: hostname.to_owned() }
    }

    /// From now on, `shown` stands for `real`.
    pub(crate) fn pair(&mut self, real: &str, shown: &str) {
        if !self.pairs.iter().any(|(known, _)| known == real) {
            self.pairs.push((real.to_owned(), shown.to_owned()));
        }
    }

    /// A command as it is really typed.
    pub(crate) fn fill(&self, command: &str) -> String {
        self.pairs.iter().fold(command.to_owned(), |command, (real, shown)| command.replace(shown, real))
    }

    /// An output as it is shown.
    pub(crate) fn hide(&mut self, printed: &str) -> String {
        let printed = self.pairs.iter().fold(printed.to_owned(), |text, (real, shown)| text.replace(real, shown));
        let mut shown = String::new();
        for line in self.without_host(&printed).lines() {
            let line = without_counts(without_times(line));
            let line = match line.split_once("Owner's key: ") {
                Some((before, rest)) => {
                    format!("{before}Owner's key: {OWNER}{}", rest.get(OWNER.len()..).unwrap_or(""))
                }
                None => line,
            };
            shown.push_str(&self.without_ids(&line));
            shown.push('\n');
        }
        shown
    }

    /// Ids get numbers in the order in which they are seen; hashes and signatures are said to be some.
    fn without_ids(&mut self, line: &str) -> String {
        let mut shown = String::new();
        let mut rest = line;
        while !rest.is_empty() {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let (word, after) = rest.split_at(length);
            let is_hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_known = self.pairs.iter().any(|(_, known)| known == word);
            match length {
                32 if !is_known => shown.push_str(&self.number(word)),
                64 if !is_known && is_hex => shown.push_str(if line.starts_with("  by ") { "KEY" } else { "HASH" }),
                128 if is_hex => shown.push_str("SIGNATURE"),
                _ => shown.push_str(word),
            }
            let separator = after.chars().next().map_or(0, char::len_utf8);
            shown.push_str(&after[..separator]);
            rest = &after[separator..];
        }
        shown
    }

    fn number(&mut self, id: &str) -> String {
        // The first is the invite's. Of digits alone, the tenth would look like the first with zeros behind it.
        let digit = char::from_digit(self.messages, 36).expect("few messages");
        let name = if self.messages == 0 { "invite".to_owned() } else { format!("message{digit}") };
        self.messages += 1;
        let shown = format!("{name:0<32}");
        self.pair(id, &shown);
        shown
    }

    /// A table's column of this machine's name.
    fn without_host(&self, printed: &str) -> String {
        let width = self.hostname.chars().count().max(4);
        let cell = |text: &str| format!("  {text:width$}  ");
        if !printed.contains(&cell("HOST")) {
            return printed.to_owned();
        }
        printed.replace(&cell("HOST"), "  HOST  ").replace(&cell(&self.hostname), "  host  ")
    }
}

fn without_times(line: &str) -> String {
    let bytes = line.as_bytes();
    let is_time = |at: usize| {
        bytes.get(at..at + TIME.len()).is_some_and(|found| {
            found.iter().zip(TIME.bytes()).all(|(byte, form)| match form {
                b'-' | b':' | b'.' | b'T' | b'Z' => *byte == form,
                _ => byte.is_ascii_digit(),
            })
        })
    };
    let mut shown = line.to_owned();
    for at in (0..bytes.len()).filter(|at| is_time(*at)) {
        shown.replace_range(at..at + TIME.len(), TIME);
    }
    shown
}

/// How far the audit log has come depends on how often somebody looked who else is there.
fn without_counts(line: String) -> String {
    let is_number = |text: &str| text.trim().parse::<u64>().is_ok();
    if let Some((_, entry)) = line.split_once(TIME).filter(|(number, _)| is_number(number)) {
        return format!("nn  {TIME}{entry}");
    }
    if let Some(rest) = line.strip_prefix("ID ").filter(|rest| rest.trim_start().starts_with("TIME ")) {
        return format!("ID  {}", rest.trim_start());
    }
    if line.strip_prefix("  entry ").is_some_and(is_number) {
        return "  entry      nn".into();
    }
    match line.strip_suffix(" entries.").and_then(|start| start.rsplit_once(": ")) {
        Some((what, number)) if is_number(number) => format!("{what}: nn entries."),
        _ => line,
    }
}

const TIME: &str = "YYYY-MM-DDThh:mm:ss.sssZ";
const OWNER: &str = "0123-4567-89ab-cdef";
