//! What things cost.

use super::{Result, Service};
use crate::domain::prices::PriceEntry;
use crate::domain::{ModelId, ValidationErrors};

impl Service {
    /// The price table; of one model, the row that it takes.
    ///
    /// # Errors
    /// VALIDATION_ERROR for a text that is no model id.
    pub fn prices(&self, model: Option<&str>) -> Result<Vec<PriceEntry>> {
        let table = &self.config.prices;
        let Some(model) = model else { return Ok(table.entries().to_vec()) };
        let model: ModelId = model.parse().map_err(|e| ValidationErrors::one("model", format!("{e}")))?;
        Ok(table.find(model.as_str()).cloned().into_iter().collect())
    }
}
