"""Names of the descriptors, in the order of the features. No heavy import: search and reports read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from vmnet_pipeline.types import Fingerprint


class Descriptor(NamedTuple):
    """One number about an item or a span of it.

    Attributes:
        name: Unique on its side.
        unit: Of the number; empty for a share, a ratio or a correlation.
        low_word: What a listener or viewer calls a low value, fit for "both ...".
        high_word: The same of a high value.
    """

    name: str
    unit: str
    low_word: str
    high_word: str


N_MFCC = 8
"""How many cepstral coefficients there are, without the first, which is loudness."""

AUDIO_DESCRIPTORS = (
    Descriptor("loudness", "dB", "quiet", "loud"),
    Descriptor("loudness_deviation", "dB", "even in loudness", "changing in loudness"),
    Descriptor("loudness_range", "dB", "compressed", "dynamic"),
    Descriptor("loudness_trend", "", "fading", "building up"),
    Descriptor("loudness_change", "dB/s", "smooth", "pulsing"),
    Descriptor("crest", "dB", "dense", "punchy"),
    Descriptor("silence", "", "without pauses", "with pauses"),
    Descriptor("onset_strength", "dB", "calm", "energetic"),
    Descriptor("onset_strength_deviation", "dB", "flowing", "accented"),
    Descriptor("onset_peak", "dB", "soft attacks", "hard attacks"),
    Descriptor("onset_rate", "1/s", "sparse", "busy"),
    Descriptor("onset_irregularity", "", "regular onsets", "irregular onsets"),
    Descriptor("tempo", "BPM", "slow", "fast"),
    Descriptor("tempo_strength", "", "free in tempo", "with a steady pulse"),
    Descriptor("beat_strength", "", "weak beat", "strong beat"),
    Descriptor("beat_irregularity", "", "steady beat", "loose beat"),
    Descriptor("percussiveness", "", "melodic", "percussive"),
    Descriptor("brightness", "Hz", "dark timbre", "bright timbre"),
    Descriptor("brightness_deviation", "Hz", "constant timbre", "changing timbre"),
    Descriptor("bandwidth", "Hz", "thin", "full"),
    Descriptor("rolloff", "Hz", "muffled", "crisp"),
    Descriptor("flatness", "dB", "pure", "noisy"),
    Descriptor("flatness_deviation", "dB", "constant noise", "changing noise"),
    Descriptor("zero_crossings", "1/s", "smooth tone", "rough tone"),
    Descriptor("zero_crossings_deviation", "1/s", "constant tone", "changing tone"),
    Descriptor("bass", "dB", "light bass", "heavy bass"),
    Descriptor("treble", "dB", "little treble", "much treble"),
    Descriptor("mode", "", "minor", "major"),
    Descriptor("key_clarity", "", "without a key", "in a clear key"),
    Descriptor("pitch_variety", "bit", "few notes", "many notes"),
    Descriptor("harmonic_change", "1/s", "static harmony", "moving harmony"),
    *(Descriptor(f"mfcc_{k}", "dB", f"low cepstrum {k}", f"high cepstrum {k}") for k in range(1, N_MFCC + 1)),
    *(
        Descriptor(f"mfcc_{k}_deviation", "dB", f"constant cepstrum {k}", f"changing cepstrum {k}")
        for k in range(1, N_MFCC + 1)
    ),
)
"""Of the preset `compact` of `descriptors_audio`."""

VIDEO_DESCRIPTORS = (
    Descriptor("light", "", "dark", "bright"),
    Descriptor("light_deviation", "", "even light", "changing light"),
    Descriptor("light_trend", "", "getting darker", "getting brighter"),
    Descriptor("flicker", "1/s", "steady light", "flickering"),
    Descriptor("shadows", "", "few shadows", "many shadows"),
    Descriptor("highlights", "", "few highlights", "many highlights"),
    Descriptor("contrast", "", "soft contrast", "hard contrast"),
    Descriptor("contrast_deviation", "", "constant contrast", "changing contrast"),
    Descriptor("sky", "", "lit from below", "lit from above"),
    Descriptor("saturation", "", "pale", "saturated"),
    Descriptor("saturation_deviation", "", "constant saturation", "changing saturation"),
    Descriptor("warmth", "", "cold colours", "warm colours"),
    Descriptor("warmth_deviation", "", "constant colours", "changing colours"),
    Descriptor("greenness", "", "magenta", "green"),
    Descriptor("colourfulness", "", "monochrome", "colourful"),
    Descriptor("hue_variety", "bit", "few hues", "many hues"),
    Descriptor("edges", "", "plain", "detailed"),
    Descriptor("edges_deviation", "", "constant detail", "changing detail"),
    Descriptor("entropy", "bit", "simple", "complex"),
    Descriptor("entropy_deviation", "bit", "constant complexity", "changing complexity"),
    Descriptor("motion", "1/s", "still", "moving"),
    Descriptor("motion_deviation", "1/s", "even motion", "bursts of motion"),
    Descriptor("motion_peak", "1/s", "gentle motion", "violent motion"),
    Descriptor("motion_trend", "", "calming down", "gaining motion"),
    Descriptor("motion_area", "", "motion in places", "motion everywhere"),
    Descriptor("stillness", "", "never still", "often still"),
    Descriptor("camera_speed", "1/s", "fixed camera", "moving camera"),
    Descriptor("motion_tempo", "BPM", "slow motion pulse", "fast motion pulse"),
    Descriptor("motion_pulse", "", "without a motion pulse", "with a motion pulse"),
    Descriptor("cuts", "1/min", "few cuts", "many cuts"),
    Descriptor("shot_irregularity", "", "regular cuts", "irregular cuts"),
)
"""Of `descriptors_video`."""

NAMED_DESCRIPTORS = {
    item.name: item for item in (*AUDIO_DESCRIPTORS, *VIDEO_DESCRIPTORS) if not item.name.startswith("mfcc_")
}
"""Descriptors whose words say something to people, by name."""

KINDRED_WORDS = {
    "brightness": ("dark", "bright"),
    "light": ("dark", "bright"),
    "onset_strength": ("calm", "lively"),
    "motion": ("calm", "lively"),
    "tempo": ("slow", "fast"),
    "cuts": ("slow", "fast"),
}
"""Descriptors of one side that have one of the other side with the same words: for low and for high values."""


def find_descriptors(fingerprint: Fingerprint) -> tuple[Descriptor, ...]:
    """Descriptors that make up the features of one backend, in their order; none for networks and unnamed numbers."""
    if fingerprint.backend == "descriptors_video":
        return VIDEO_DESCRIPTORS
    is_compact = fingerprint.backend == "descriptors_audio" and fingerprint.settings.get("preset") == "compact"
    return AUDIO_DESCRIPTORS if is_compact else ()
