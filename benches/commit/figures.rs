//! Arithmetic of the report: quantiles, medians, and sizes in words.

/// The figure of `sorted` that the share `quantile` of all lies at or below.
pub(super) fn quantile(sorted: &[u64], quantile: f64) -> f64 {
    let place = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted.get(place.saturating_sub(1)).map_or(f64::NAN, |&figure| figure as f64)
}

/// The middle of some figures, and the greatest.
pub(super) fn median_and_max(figures: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    (middle, sorted.last().copied().unwrap_or(f64::NAN))
}

/// "300 B", "16 KiB", "1.5 MiB", "10 GiB".
pub(super) fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let mut figure = bytes;
    let mut unit = 0;
    while figure >= 1024.0 && unit + 1 < units.len() {
        figure /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(figure < 100.0 && figure.fract() != 0.0);
    format!("{figure:.digits$} {}", units[unit])
}
