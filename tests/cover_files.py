"""Tracks with a picture attached."""

import io

import av
import numpy as np
from PIL import Image


def draw(form, size=(400, 300)):
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 90)).save(file, form)
    return file.getvalue()


def write_track(path, picture=b"", codec="mjpeg"):
    with av.open(str(path), "w") as container:
        sound = container.add_stream("flac" if path.suffix == ".flac" else "libmp3lame", rate=22_050)
        sound.layout = "mono"
        if picture:
            cover = container.add_stream_from_template(open_picture(picture, codec))
            cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 22_050), np.int16), format="s16", layout="mono")
        frame.sample_rate = 22_050
        if picture:
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts = cover, 0, 0
            container.mux(packet)
        for packets in (sound.encode(frame), sound.encode(None)):
            container.mux(packets)
    return path


def open_picture(picture, codec):
    container = av.open(io.BytesIO(picture), format={"mjpeg": "jpeg_pipe", "png": "png_pipe"}[codec])
    return container.streams.video[0]
