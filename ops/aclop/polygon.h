// Rotated boxes as polygons, and the area that two of them share.
#pragma once

#include <cmath>
#include <numbers>

namespace anycann::aclop {

struct Point {
  double x, y;
};

// A convex polygon of at most 8 corners: what two rectangles can share.
struct Polygon {
  Point corners[16];
  int count = 0;
  void Add(Point p) { corners[count++] = p; }
  double Area() const {
    double twice = 0;
    for (int i = 0; i < count; ++i) {
      const Point &p = corners[i], &q = corners[(i + 1) % count];
      twice += p.x * q.y - q.x * p.y;
    }
    return std::abs(twice) / 2;
  }
};

struct RotatedBox {
  double x, y, w, h, degrees;

  // Two corners and an angle, or centre, size and angle.
  static RotatedBox Of(const double (&v)[5], bool corners) {
    if (!corners) return {v[0], v[1], v[2], v[3], v[4]};
    return {(v[0] + v[2]) / 2, (v[1] + v[3]) / 2, v[2] - v[0], v[3] - v[1], v[4]};
  }
  double Area() const { return w * h; }
  // Counter-clockwise where y points up.
  Polygon Outline() const {
    const double angle = degrees * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle);
    const double u = std::abs(w) / 2, v = std::abs(h) / 2;
    const Point along{u * c, u * s}, across{-v * s, v * c};  // half a side each
    Polygon p;
    p.Add({x - along.x - across.x, y - along.y - across.y});
    p.Add({x + along.x - across.x, y + along.y - across.y});
    p.Add({x + along.x + across.x, y + along.y + across.y});
    p.Add({x - along.x + across.x, y - along.y + across.y});
    return p;
  }
};

// The area that both boxes cover: one outline is cut by the four edges of the other.
inline double SharedArea(const RotatedBox& a, const RotatedBox& b) {
  Polygon p = a.Outline();
  const Polygon edges = b.Outline();
  for (int e = 0; e < 4 && p.count > 0; ++e) {
    const Point &from = edges.corners[e], &to = edges.corners[(e + 1) % 4];
    const auto side = [&](const Point& q) {
      return (to.x - from.x) * (q.y - from.y) - (to.y - from.y) * (q.x - from.x);
    };
    Polygon kept;
    for (int i = 0; i < p.count; ++i) {
      const Point &q = p.corners[i], &next = p.corners[(i + 1) % p.count];
      const double here = side(q), there = side(next);
      if (here >= 0) kept.Add(q);
      if ((here > 0 && there < 0) || (here < 0 && there > 0)) {
        const double part = here / (here - there);
        kept.Add({q.x + (next.x - q.x) * part, q.y + (next.y - q.y) * part});
      }
    }
    p = kept;
  }
  return p.Area();
}

}  // namespace anycann::aclop
