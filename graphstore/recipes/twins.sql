-- Which pairs of units of a layer always do the same: correlation above 0.95 over all kept samples?
WITH hidden AS (
    SELECT t.graph, u.layer, a.unit, a."values" AS v
    FROM activations AS a
    JOIN traces AS t ON t.id = a.trace
    JOIN units AS u ON u.graph = t.graph AND u.id = a.unit
    WHERE u.role = 'hidden' AND u.neuron AND list_bool_and(list_transform(a."values", lambda x: isfinite(x)))
        AND list_stddev_pop(a."values") > 1e-6 * greatest(abs(list_max(a."values")), abs(list_min(a."values")))
), centred AS (
    SELECT graph, layer, unit, list_transform(v, lambda x: x - list_avg(v)) AS c FROM hidden
)
SELECT g.name AS graph, l.name AS layer, x.unit - l.first_unit AS unit, y.unit - l.first_unit AS twin,
       round(list_cosine_similarity(x.c, y.c), 4) AS correlation
FROM centred AS x
JOIN centred AS y ON y.graph = x.graph AND y.layer = x.layer AND y.unit > x.unit
JOIN graphs AS g ON g.id = x.graph
JOIN layers AS l ON l.graph = x.graph AND l.id = x.layer
WHERE list_cosine_similarity(x.c, y.c) > 0.95
ORDER BY correlation DESC, g.id, unit
LIMIT 10
