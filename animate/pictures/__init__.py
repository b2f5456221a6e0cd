"""pictures: from the bytes of a source to the one picture that every store holds (picture); jpeg: what a header says;
pillow: all that is no plain color JPEG; claims: what a header costs."""
