//! The charts: bars for each set-up, with units, figures and the range over the rounds.

use std::path::Path;

use anyhow::Context as _;
use plotters::coord::ranged1d::KeyPointHint;
use plotters::coord::ranged1d::{NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (960, 520);
const FONT: &str = "sans-serif";
/// Told apart also by who sees few colours (Okabe and Ito).
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115)];
/// Of the room of a set-up that its bars take.
const BARS_WIDTH: f64 = 0.76;

/// One bar of each set-up.
pub(super) struct Series {
    pub(super) name: &'static str,
    /// Median, least and greatest over the rounds, a set-up each; none where nothing was measured.
    pub(super) values: Vec<Option<[f64; 3]>>,
}

impl Series {
    /// What was measured, with the places of the set-ups.
    fn known(&self) -> impl Iterator<Item = (usize, [f64; 3])> {
        self.values.iter().enumerate().filter_map(|(at, values)| Some((at, (*values)?)))
    }
}

/// What a chart shows.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) unit: &'a str,
    pub(super) names: &'a [&'a str],
    pub(super) series: &'a [Series],
}

/// The axis of set-ups: a name in the middle of each.
struct Names(Vec<String>);

impl Ranged for Names {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let width = f64::from(limit.1 - limit.0);
        #[expect(clippy::cast_possible_truncation, reason = "within the picture")]
        let offset = (value / float(self.0.len()) * width).round() as i32;
        limit.0 + offset
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        (0..self.0.len()).map(|at| float(at) + 0.5).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        0.0..float(self.0.len())
    }
}

impl ValueFormatter<f64> for Names {
    fn format_ext(&self, value: &f64) -> String {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "one of the key points")]
        let at = value.floor() as usize;
        self.0.get(at).cloned().unwrap_or_default()
    }
}

impl Chart<'_> {
    /// Writes the picture.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn write(&self, file: &Path) -> anyhow::Result<()> {
        self.draw(file)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| format!("can't write {}", file.display()))
    }

    fn draw(&self, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(file, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let names = Names(self.names.iter().map(ToString::to_string).collect());
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, (FONT, 22))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d(names, 0.0..self.top())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .y_desc(self.unit)
            .x_label_style((FONT, 17))
            .y_label_style((FONT, 15))
            .axis_desc_style((FONT, 17))
            .y_label_formatter(&|value| format!("{}", (value * 1e6).round() / 1e6))
            .draw()?;
        for (place, series) in self.series.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            let bars = series.known().map(|(at, [median, ..])| {
                let (left, right) = self.sides(at, place);
                Rectangle::new([(left, 0.0), (right, median)], colour.filled())
            });
            let drawn = chart.draw_series(bars)?;
            drawn
                .label(series.name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 6), (x + 14, y + 6)], colour.filled()));
            chart.draw_series(self.ranges(place, series))?;
            chart.draw_series(self.figures(place, series))?;
        }
        if self.series.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .label_font((FONT, 16))
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.3))
                .draw()?;
        }
        Ok(area.present()?)
    }

    /// A thin line from the least to the greatest.
    fn ranges<'s>(
        &'s self,
        place: usize,
        series: &'s Series,
    ) -> impl Iterator<Item = PathElement<(f64, f64)>> + 's {
        series.known().map(move |(at, [_, least, greatest])| {
            let (left, right) = self.sides(at, place);
            let middle = f64::midpoint(left, right);
            PathElement::new(vec![(middle, least), (middle, greatest)], BLACK.mix(0.7).stroke_width(2))
        })
    }

    /// The medians as text, above everything.
    fn figures<'s>(
        &'s self,
        place: usize,
        series: &'s Series,
    ) -> impl Iterator<Item = Text<'s, (f64, f64), String>> + 's {
        let style = TextStyle::from((FONT, 15).into_font()).pos(Pos::new(HPos::Center, VPos::Bottom));
        series.known().map(move |(at, [median, _, greatest])| {
            let (left, right) = self.sides(at, place);
            let above = greatest.max(median) + self.top() * 0.012;
            Text::new(figure(median), (f64::midpoint(left, right), above), style.clone())
        })
    }

    /// The left and the right side of a bar.
    fn sides(&self, at: usize, place: usize) -> (f64, f64) {
        let width = BARS_WIDTH / float(self.series.len());
        let left = float(at) + (1.0 - BARS_WIDTH) / 2.0 + width * float(place);
        (left + width * 0.05, left + width * 0.95)
    }

    /// Above the greatest value, with room for figures and for the legend.
    fn top(&self) -> f64 {
        let room = if self.series.len() > 1 { 1.3 } else { 1.15 };
        let values = self.series.iter().flat_map(Series::known).flat_map(|(_, values)| values);
        values.fold(f64::EPSILON, f64::max) * room
    }
}

/// As many digits as say something.
pub(super) fn figure(value: f64) -> String {
    match value {
        _ if value >= 100.0 || value == 0.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a handful of set-ups")]
fn float(count: usize) -> f64 {
    count as f64
}
