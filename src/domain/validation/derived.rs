//! Rules that `validator` derives, reported with the paths and in the words of the rest.

use validator::{Validate, ValidationError};

use super::Checker;

impl Checker {
    /// Notes what the derived rules of `value` refuse; fields get their camelCase names.
    pub fn derived(&mut self, value: &impl Validate) {
        let Err(errors) = value.validate() else { return };
        let by_field = errors.field_errors();
        let mut fields: Vec<_> = by_field.into_iter().collect();
        fields.sort_unstable_by(|a, b| a.0.cmp(&b.0)); // the map's own order is random
        for (field, errors) in fields {
            self.within(&camel_case(&field), |c| {
                for error in errors {
                    c.error(describe(error));
                }
            });
        }
    }
}

fn describe(error: &ValidationError) -> String {
    let value = error.params.get("value");
    match (error.params.get("min"), error.params.get("max"), value) {
        (Some(min), Some(max), Some(value)) => {
            format!("is {value}, which is out of range: give a number from {min} to {max}")
        }
        _ => error.message.as_deref().unwrap_or(&error.code).to_owned(),
    }
}

fn camel_case(field: &str) -> String {
    let mut name = String::with_capacity(field.len());
    let mut upper = false;
    for c in field.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                name.extend(c.to_uppercase());
                upper = false;
            }
            c => name.push(c),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Validate)]
    struct Sample {
        #[validate(range(min = 1, max = 100))]
        sample_percentage: i32,
        #[validate(range(min = 0.0, max = 2.0))]
        temperature: Option<f64>,
    }

    #[test]
    fn derived_rules_name_the_field_the_value_and_the_range() {
        let mut checker = Checker::new("input", 10);
        checker.derived(&Sample { sample_percentage: 0, temperature: Some(2.5) });
        let errors = checker.finish().unwrap_err();
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "input.samplePercentage is 0, which is out of range: give a number from 1 to 100",
                "input.temperature is 2.5, which is out of range: give a number from 0.0 to 2.0",
            ]
        );
    }
}
