-- How does emergence depend on the threshold, and at which one is it largest?
SELECT g.name AS graph, t.interior, count(*) AS thresholds, arg_max(t.threshold, t.log10) AS at,
       round(max(t.log10), 3) AS log10_largest, round(min(t.log10), 3) AS log10_smallest
FROM emergence_thresholds AS t
JOIN runs AS r ON r.id = t.run
JOIN graphs AS g ON g.id = r.graph
GROUP BY g.id, g.name, t.interior
ORDER BY g.id, t.interior
