//! The one thing that is read from the AWS config file before the SDK does: a profile's region.

/// The `region` of a profile in the text of `~/.aws/config`, whose sections are `[default]` and `[profile NAME]`.
pub fn region(text: &str, profile: &str) -> Option<String> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            let name = section.trim();
            let name = name.strip_prefix("profile ").map_or(name, str::trim);
            inside = name == profile;
        } else if inside
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "region"
        {
            return Some(value.split(['#', ';']).next()?.trim().to_owned()).filter(|v| !v.is_empty());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_of_the_named_profile_and_of_no_other() {
        let text = "# mine\n[default]\nregion = eu-west-1\n[profile ci]\noutput=json\nregion=us-east-2 # there\n[profile none]\n";
        assert_eq!(region(text, "default").as_deref(), Some("eu-west-1"));
        assert_eq!(region(text, "ci").as_deref(), Some("us-east-2"));
        assert_eq!(region(text, "none"), None);
        assert_eq!(region(text, "other"), None);
    }
}
