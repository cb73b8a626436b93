//! Generated names.

/// `stack-logical-RANDOM12`, cut to `most` characters at the cost of its beginning parts.
pub fn physical(stack: &str, logical: &str, most: usize) -> String {
    let random = random(12);
    let room = most.saturating_sub(random.len() + 2);
    let logical: String = logical.chars().take(room / 2).collect();
    let stack: String = stack.chars().take(room - logical.chars().count()).collect();
    format!("{}-{}-{random}", stack.trim_end_matches('-'), logical.trim_end_matches('-'))
}

/// So many random letters and digits.
pub fn random(length: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut name = String::with_capacity(length);
    while name.len() < length {
        for byte in uuid::Uuid::new_v4().as_bytes() {
            // The version and variant bits make some bytes less random; good enough for names.
            if name.len() < length {
                name.push(char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
            }
        }
    }
    name
}
